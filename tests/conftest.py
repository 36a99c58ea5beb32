"""Checks for every test: no thread, socket or pipe outlives it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from daemonkit.config.secrets import SECRETS
from daemonkit.text import plain

from .engines import Engine, running_engine
from .functional.tools import need

SETTLE = 20.0

# These start processes or read files.
ELSEWHERE = (
    "tests/functional/",
    "tests/test_benchmarks.py",
    "tests/test_docs.py",
    "tests/test_layers.py",
)
# Hundreds of requests, of which the other tests make those that differ.
CORPORA = (
    "test_both_ways_",
    "test_each_request_is_answered_",
    "test_each_route_answers_",
    "test_other_methods_need_",
)

# On a busy machine, generating examples is slow, too. In CI as elsewhere, each run makes others.
settings.register_profile(
    "busy",
    settings.get_profile("default"),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("busy")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--cycles", type=int, default=8, help="how often a daemon is killed, or the power cut"
    )


def pytest_configure() -> None:
    """Undo the effect of `nohup` and a shell's `&`: programs that tests start would ignore these
    signals, too."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # A started program gets the default action instead of a handler.
        signal.signal(signal.SIGHUP, lambda *_: None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """With `-n auto`: two for each CPU, since many tests wait for processes; a test that is named
    (`pytest tests/test_app.py::test_name`) runs in this process, where a debugger can stop it.
    """
    if config.args and all("::" in argument for argument in config.args):
        return 0
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out of the coverage what is slow when it is traced, and runs no lines of its own here:
    generated examples, corpora, and tests of other processes, pages and source files."""
    for item in items:
        generated = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        if generated or item.nodeid.startswith(ELSEWHERE) or item.name.startswith(CORPORA):
            item.add_marker("no_cover")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in a test's output: pytest-xdist can't transmit them."""
    report = yield
    report.sections = [(name, plain(text)) for name, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _no_secret_outlives_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of a test's configuration would be redacted in other tests."""
    monkeypatch.setattr(SECRETS, "_redactor", SECRETS._redactor)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


@pytest.fixture(autouse=True)
def _no_log_level_outlives_the_test() -> Iterator[None]:
    level = logging.root.level
    yield
    assert logging.root.level == level


def _sockets() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith(("socket:", "pipe:")):
            found.add(target)
    return found


@pytest.fixture(autouse=True, scope="session")
def _quick_collections() -> None:
    """Exclude the objects of the imports from the collection after each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _nothing_outlives_the_test() -> Iterator[None]:
    threads, sockets = set(threading.enumerate()), _sockets()
    yield
    until = time.monotonic() + SETTLE
    while True:
        left = [thread.name for thread in set(threading.enumerate()) - threads]
        opened = sorted(_sockets() - sockets)
        if not left and not opened:
            return
        assert time.monotonic() < until, f"outlived the test: threads {left}, {opened}"
        # A cycle may hold them; a collection after every test would take a tenth of the time.
        gc.collect()
        time.sleep(0.01)


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("redis-server")
    with running_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
def engine(shared_engine: Engine) -> Engine:
    """An engine that must be left running; it is empty."""
    with shared_engine.client() as client:
        client.flushall()
        client.config_set("maxmemory", "0")
    return shared_engine


@pytest.fixture
def own_engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that the test may kill."""
    need("redis-server")
    with running_engine(tmp_path / "engine") as engine:
        yield engine
