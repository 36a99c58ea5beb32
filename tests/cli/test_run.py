from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit import Daemon, __version__
from daemonkit.cli.group import group
from daemonkit.cli.run import BLOCKED_SIGNALS
from daemonkit.config.defaults import SETTINGS


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Daemon]:
    """The daemons that `run` has started."""
    found: list[Daemon] = []
    # The handlers are put back at once, and not with the next signal.
    monkeypatch.setattr("daemonkit.lifecycle.signal_actions.SAME_SIGNAL", 0.0)
    monkeypatch.setattr("daemonkit.app.Daemon.start", lambda self: found.append(self))
    monkeypatch.setattr("daemonkit.cli.options.load_daemon", lambda target: Daemon(target))
    return found


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(group, arguments, catch_exceptions=False)


def test_config_set_and_short_forms_reach_the_daemon(started: list[Daemon], tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("master: {port: 1, host: 127.0.0.1}\nurl: x\n")
    result = invoke(
        "run", "mymod:app", "--config", str(path), "--host", "::", "--port", "3322",
        "--log-level", "info", "--set", "url=[1]", "--set", "master.queue_size=5",
    )  # fmt: skip
    (app,) = started

    assert result.exit_code == 0
    assert app.config == {"url": [1]}
    chosen = {name: app.master_config[name] for name in ("host", "port", "log_level", "queue_size")}
    assert chosen == {"host": "::", "port": 3322, "log_level": "INFO", "queue_size": 5}


def test_a_signal_that_the_import_swallows_stops_before_the_start(
    started: list[Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(target: str) -> Daemon:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        return Daemon(target)

    monkeypatch.setattr("daemonkit.cli.options.load_daemon", load)
    result = invoke("run", "mymod:app")

    assert (result.exit_code, started) == (0, [])
    assert result.output == "daemonkit: stopped before the start\n"


def test_a_ctrl_c_between_the_first_handlers_stops_before_the_start(
    started: list[Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_handler = signal.signal

    def set_and_interrupt(number: int, handler: Any) -> Any:
        old = set_handler(number, handler)
        if number == signal.SIGTERM:
            monkeypatch.setattr(signal, "signal", set_handler)
            signal.raise_signal(signal.SIGINT)
        return old

    monkeypatch.setattr(signal, "signal", set_and_interrupt)
    result = invoke("run", "mymod:app")

    assert result.output == "daemonkit: stopped before the start\n"
    assert (result.exit_code, started) == (0, [])
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_signals_wait_for_the_start_and_no_longer_than_the_daemon(
    started: list[Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[set[Any]] = []

    def note(_: Daemon | None = None) -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, []) & set(BLOCKED_SIGNALS))

    monkeypatch.setattr("daemonkit.app.Daemon.start", note)
    invoke("run", "mymod:app")
    note()

    assert masks == [set(BLOCKED_SIGNALS), set()]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--port", "x"], "--port: master.port must be an int 0..65535, not 'x' (str)"),
        (["--port", "99999"], "--port: master.port must be an int 0..65535, not 99999 (int)"),
        (
            ["--host", ""],
            "--host: master.host must be an address, or unix: and an absolute path, not '' (str)",
        ),
        (["--set", "x=\udcff"], "--set x: not valid UTF-8"),
        (["--set", "x=!secret \udcff"], "--set x: not valid UTF-8"),
        (["--set", "\udcff=1"], "the KEY of --set is not valid UTF-8: '\\udcff'"),
        (["--host", "\udcff"], "--host: not valid UTF-8"),
        (["--port", "\udcff"], "--port: not valid UTF-8"),
        (["--log-level", "\udcff"], "--log-level: not valid UTF-8"),
        (["--set", "x"], "--set takes KEY=VALUE with a dotted KEY, not 'x'"),
        (
            ["--config", "nowhere.yaml"],
            "nowhere.yaml: cannot read the configuration: No such file or directory",
        ),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_status_2(
    started: list[Daemon], arguments: list[str], line: str
) -> None:
    result = invoke("run", "mymod:app", *arguments)

    assert (result.exit_code, result.stderr) == (2, f"daemonkit: {line}\n")
    assert started == []


def test_an_unknown_option_is_a_usage_error() -> None:
    assert invoke("run", "mymod:app", "--frobnicate").exit_code == 2
    assert invoke("run").exit_code == 2


def test_the_version_includes_what_a_bug_report_needs() -> None:
    result = invoke("--version")

    assert result.exit_code == 0
    assert re.fullmatch(
        rf"daemonkit {re.escape(__version__)} \(Python [\d.]+, Flask [\d.]+, waitress [\d.]+\)\n",
        result.output,
    )


def test_what_few_runs_need_is_imported_only_when_needed() -> None:
    """Importing asyncio or requests takes longer than all of daemonkit's own modules."""
    code = (
        "import daemonkit.cli.run, sys; print({'asyncio', 'requests', 'sqlite3'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout == "set()\n"


def test_the_help_of_the_short_forms_comes_from_the_table() -> None:
    text = " ".join(invoke("run", "--help").output.split())

    for setting in SETTINGS.values():
        if setting.option:
            assert f"[default: {setting.default}]" in text
            assert setting.help.replace("`", "").split(".")[0] in text
