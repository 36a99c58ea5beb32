"""Every block of code, configuration and commands on the pages, run as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.testing import running

from .pages import BLOCKS, PAGES, Block, blocks_of
from .process import Process
from .test_systemd import verify
from .tools import need_all_of

Spawn = Callable[..., Process]

PRELUDE = """\
import flask
from daemonkit import Daemon, PingError, Slave

app = Daemon("app")


class database:
    alive = staticmethod(lambda: True)


def fetch(url): ...


"""
"""What a page's shorter examples assume."""
CONFIG = {"url": "http://x", "urls": ["http://x"], "token": "t"}
RUNNERS = {"python", "yaml", "sh", "console", "ini", "text"}
"""Languages of blocks; `text` is output, and not run."""
EXEMPT = 10
"""Blocks with a comment that they aren't run."""


def blocks(language: str) -> pytest.MarkDecorator:
    found = [block for block in BLOCKS if block.language == language and not block.reason]
    return pytest.mark.parametrize("block", found, ids=str)


def test_every_block_names_its_language_and_few_are_not_run() -> None:
    assert {block.language for block in BLOCKS} <= RUNNERS
    assert [str(block) for block in BLOCKS if block.language == "text" and block.reason] == []
    assert len([block for block in BLOCKS if block.reason]) <= EXEMPT


def test_every_fence_is_found() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *```", page.read_text("utf-8"), re.M)
        assert len(fences) == 2 * len(blocks_of(page)), page.name


# Python


def is_test(text: str) -> bool:
    return "def test_" in text


def starts_itself(text: str) -> bool:
    return ".start()" in text


def program(text: str) -> str:
    return text if "Daemon(" in text else PRELUDE + text


@blocks("python")
def test_python(block: Block, spawn: Spawn, caplog: pytest.LogCaptureFixture) -> None:
    if is_test(block.text):
        tests = spawn("-m", "pytest", "-q", "-p", "no:cacheprovider", test_page__py=block.text)
        assert tests.wait() == 0, tests.out
        assert " passed" in tests.out
    elif starts_itself(block.text):
        text = program(block.text)
        if "config=" not in text:
            text = text.replace('Daemon("app")', 'Daemon("app", config="cfg.yaml")')
        daemon = spawn("prog.py", prog__py=text, cfg__yaml="master: {port: 0}").wait_ready()
        assert daemon.get("/ping").text == "OK\n"
        assert daemon.stop() == 0
        assert daemon.err == ""
    else:
        check_app(block, caplog)


def check_app(block: Block, caplog: pytest.LogCaptureFixture) -> None:
    """Run what a block registers, and send it an event."""
    names: dict[str, Any] = {"__name__": "mymod"}
    exec(compile(program(block.text), str(block), "exec"), names)
    app = names["app"]
    assert isinstance(app, Daemon)
    with running(app, CONFIG, timeout=60) as client:
        answer = client.post("/events", json={"paid": 5}, headers={"Authorization": "Bearer t"})
        assert answer.status_code == 200
        client.wait_until(lambda: client.status()["events"]["handled"] == 1)
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0
    assert [record.getMessage() for record in caplog.records if record.levelno >= 40] == []


# Configuration


@blocks("yaml")
def test_yaml(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BILLING_URL", "TOKEN", "SHOP_TOKEN", "ONCALL_TOKEN"):
        monkeypatch.setenv(name, f"the value of {name}".replace(" ", "-"))
    (tmp_path / "secrets").mkdir()
    for name in ("db", "grafana"):
        (tmp_path / "secrets" / name).write_text(f"hush-hush-hush-{name}\n")
    file = tmp_path / "cfg.yaml"
    file.write_text(block.text)
    keys = set(re.findall(r"^(\w+):", block.text, re.M))

    app = Daemon("app", config=file)

    assert {*app.config} == keys - {"master"}


@blocks("ini")
def test_unit(block: Block, tmp_path: Path) -> None:
    kind = "socket" if "[Socket]" in block.text else "service"
    if kind == "socket":
        (tmp_path / "billing.service").write_text("[Service]\nExecStart=/bin/true\n")
    unit = tmp_path / f"billing.{kind}"
    unit.write_text(block.text)

    verify(unit)


# Commands


def with_command(folder: Path) -> str:
    """A PATH that has the command `daemonkit`, whether or not it is installed."""
    command = folder / "daemonkit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m daemonkit "$@"\n')
    command.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


class Shell:
    """Runs a page's commands in order, in a folder with the page's program and configuration."""

    def __init__(self, page: Path, folder: Path, spawn: Spawn) -> None:
        found = blocks_of(page)
        apps = [b.text for b in found if b.language == "python" and "= Daemon(" in b.text]
        configs = [b.text for b in found if b.language == "yaml"]
        self._files = {
            "mymod__py": next((text for text in apps if not is_test(text)), PRELUDE),
            "cfg__yaml": next(iter(configs), ""),
            "events__ndjson": '{"a": 1}\n{"a": 2}\n',
        }
        self._spawn = spawn
        self._path = with_command(folder)
        self.daemon: Process | None = None

    def run(self, line: str) -> None:
        line = line.replace(".venv/bin/", "")
        if line.startswith("daemonkit run "):
            self.start(shlex.split(line)[1:])
            return
        if self.daemon is None:
            self.start(["run", "mymod"])
        assert self.daemon is not None
        need_all_of(line.replace("daemonkit ", "sh ", 1))
        line = line.replace("5151", str(self.daemon.port)).replace("curl ", "curl -sS --fail ")
        done = subprocess.run(
            line,
            shell=True,
            cwd=self.daemon.folder,
            env={**os.environ, "PATH": self._path},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")

    def start(self, arguments: list[str]) -> None:
        self.stop()
        if "--port" in arguments:
            del arguments[(place := arguments.index("--port")) : place + 2]
        command = ("-m", "daemonkit", *arguments, "--port", "0")
        self.daemon = self._spawn(*command, **self._files).wait_ready()

    def stop(self) -> None:
        if self.daemon is not None:
            assert self.daemon.status()["events"]["failed"] == 0
            assert self.daemon.stop() == 0
            assert self.daemon.err == ""


PAGES_WITH_COMMANDS = [
    page for page in PAGES if any(b.language == "sh" and not b.reason for b in blocks_of(page))
]


@pytest.mark.parametrize("page", PAGES_WITH_COMMANDS, ids=lambda page: page.name)
def test_commands(page: Path, tmp_path: Path, spawn: Spawn) -> None:
    shell = Shell(page, tmp_path, spawn)
    for block in blocks_of(page):
        if block.language == "sh" and not block.reason:
            for line in block.text.splitlines():
                shell.run(line)
    shell.stop()


# Transcripts

FAILS = """\
from daemonkit import Daemon
app = Daemon("app")

@app.on_event(retries=1, backoff=0.01)
def handle(event):
    if "kind" not in event: raise KeyError("kind")
"""
HANGS = """\
import threading
from daemonkit import Daemon
app = Daemon("app")

@app.on_event(retries=1, backoff=3600)
def handle(event):
    if event["host"] == "db3":
        raise ConnectionRefusedError("billing.example.com refused the connection")
    threading.Event().wait()
"""


def queue_of_events(folder: Path, spawn: Spawn) -> None:
    """Make `events.db`: a dead letter, an event to be retried, and four waiting ones."""
    setting = f"--set=master.queue={folder / 'events.db'}"
    command = ("-m", "daemonkit", "run", "app", "--port", "0", setting)
    first = spawn(*command, app__py=FAILS).wait_ready()
    first.send_event({"host": "web1"})
    first.wait_until(lambda: first.status()["events"]["dead"])
    assert first.stop() == 0
    second = spawn(*command, app__py=HANGS).wait_ready()
    for host in ("db3", "web0", "web1", "web2", "web3"):
        second.send_event({"host": host, "kind": "disk full"})
    second.wait_until(lambda: second.status()["events"]["retried"])
    second.close()


STAGES = {"durability.md": queue_of_events}
"""What a page's transcripts need."""
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Each command, and what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def tidy(text: str) -> str:
    """Leave out what differs from run to run: dates, folders, and the marks below a traceback's lines."""
    text = re.sub(r"^ *\^+$", "", STAMP.sub("DATE", text), flags=re.M)
    return re.sub(r'File ".*/', 'File "', text).strip()


def pattern(output: str) -> str:
    """A regular expression of what is printed: `...` is anything."""
    words = tidy(output).split()
    return r"\s+".join(r"[\s\S]*".join(map(re.escape, word.split("..."))) for word in words)


@blocks("console")
def test_transcript(block: Block, tmp_path: Path, spawn: Spawn) -> None:
    if stage := STAGES.get(block.page.name):
        stage(tmp_path, spawn)
    path = with_command(tmp_path)
    width = max(map(len, block.text.splitlines()))
    for command, output in steps(block.text):
        done = subprocess.run(
            command,
            shell=True,
            cwd=tmp_path,
            env={**os.environ, "PATH": path, "COLUMNS": str(width)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        assert re.fullmatch(pattern(output), tidy(done.stdout)), done.stdout
