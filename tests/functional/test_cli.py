"""The command line for a running daemon, against a real one."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .process import Process

APP = """\
from daemonkit import Daemon
app = Daemon("billing")

@app.slave
def steady(slave): slave.shutdown.wait()

@app.on_event
def handle(event):
    if event == "bad": raise ValueError("bad")
"""


@pytest.fixture
def daemon(run_app: Callable[..., Process]) -> Process:
    return run_app(APP).wait_ready()


def command(daemon: Process, *arguments: str, input: str = "") -> Any:
    return subprocess.run(
        [sys.executable, "-m", "daemonkit", *arguments],
        cwd=daemon.folder,
        env={**os.environ, "DAEMONKIT_URL": daemon.url},
        input=input,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_ping_and_status_of_a_daemon_that_runs_and_of_one_that_does_not(daemon: Process) -> None:
    daemon.send_event("bad")
    daemon.wait_until(lambda: daemon.status()["events"]["dead"])
    ping, status = command(daemon, "ping"), command(daemon, "status")
    shown = command(daemon, "status", "--json")

    assert (ping.returncode, ping.stdout, ping.stderr) == (0, "OK\n", "")
    assert (status.returncode, status.stderr) == (0, "")
    lines = status.stdout.splitlines()
    assert lines[0] == "● billing - running, healthy"
    assert re.fullmatch(r"steady +running +0 +\d\.\d s +-", lines[6])
    assert lines[9].split()[-1] == "ValueError"
    assert json.loads(shown.stdout)["pid"] == daemon.popen.pid
    assert daemon.stop() == 0
    for name in ("ping", "status"):
        gone = command(daemon, name)
        assert (gone.returncode, gone.stdout) == (3, "")
        assert gone.stderr == f"daemonkit: cannot reach {daemon.url}: Connection refused\n"


@pytest.mark.parametrize(
    ("words", "full", "ended"),
    [
        # What has come of these matters more.
        ("ping", 0, 0),
        ("send 1", 0, 0),
        ("status", 74, 141),
        ("status --json", 74, 141),
        ("ctl stacks", 74, 141),
        ("ctl pause events", 0, 0),
    ],
)
def test_output_that_can_t_be_written(daemon: Process, words: str, full: int, ended: int) -> None:
    def run(to: int | None) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "daemonkit", *words.split()],
            env={**os.environ, "DAEMONKIT_URL": daemon.url},
            stdout=to,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=None if to else lambda: os.close(1),
        )
        if to is not None:
            os.close(to)
        return done.returncode, done.stderr

    ours, theirs = os.pipe()
    os.close(ours)
    error = "daemonkit: cannot write the output: No space left on device\n"

    assert run(os.open("/dev/full", os.O_WRONLY)) == (full, error)
    assert run(theirs) == (ended, "")
    assert run(None) == (0, "")


def test_a_closed_stdin_is_not_an_empty_one(daemon: Process) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "daemonkit", "send", daemon.url, "-"],
        preexec_fn=lambda: os.close(0),
        capture_output=True,
        text=True,
    )

    error = "daemonkit: cannot read stdin: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (2, error)


@contextmanager
def on_terminal(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A command on a terminal of its own."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "daemonkit", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8"},
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def read_until(terminal: int, text: bytes, seen: bytes = b"") -> bytes:
    """Read what is written until it contains a text; the test's time limit ends it otherwise."""
    while text not in seen:
        seen += os.read(terminal, 65536)
    return seen


def test_watch_shows_the_end_of_the_daemon_and_restores_the_terminal(daemon: Process) -> None:
    with on_terminal("status", "--watch", daemon.url) as (process, terminal):
        seen = read_until(terminal, b"billing")
        assert daemon.stop() == 0
        seen = read_until(terminal, b"cannot reach", seen)
        process.send_signal(signal.SIGINT)
        seen = read_until(terminal, b"\x1b[?1049l", seen)
        assert process.wait(60) == 0

    assert seen.startswith(b"\x1b[?1049h\x1b[?25l")
    assert seen.endswith(b"\x1b[?25h\x1b[?1049l")
    # It is never cleared before it is drawn.
    assert b"\x1b[2J" not in seen


def test_events_that_are_sent_are_handled(daemon: Process) -> None:
    (daemon.folder / "events.ndjson").write_text("".join(f"{n}\n" for n in range(2500)))
    file, pipe = command(daemon, "send", "events.ndjson"), command(daemon, "send", "-", input="1\n")
    udp = command(daemon, "send", "--udp", '{"a": 1}')

    for done, count in ((file, "2,500 events"), (pipe, "1 event")):
        assert (done.returncode, done.stderr) == (0, "")
        assert re.fullmatch(
            rf"{count} sent.*: [\d,]+ accepted, 0 refused, 0 unknown\n", done.stdout
        )
    assert (udp.returncode, udp.stderr) == (0, "")
    daemon.wait_until(lambda: daemon.status()["events"]["handled"] == 2502)


def test_events_that_meet_a_restart_add_up(run_app: Callable[..., Process]) -> None:
    first = run_app(APP).wait_ready()
    sending = subprocess.Popen(
        [sys.executable, "-m", "daemonkit", "send", first.url, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert sending.stdin is not None
    sending.stdin.write(b"1\n")
    sending.stdin.flush()
    first.wait_until(lambda: first.status()["events"]["received"] == 1)
    assert first.stop() == 0
    second = run_app(APP, "--port", str(first.port)).wait_ready()
    out, err = sending.communicate(b"2\n3\n", timeout=60)

    assert err == b""
    assert (sending.returncode, out.partition(b": ")[2]) == (
        0,
        b"3 accepted, 0 refused, 0 unknown\n",
    )
    assert second.status()["events"]["received"] == 2


CONTROLLED = """\
from daemonkit import Daemon
app = Daemon("billing")
calls = []

@app.slave(every=3600)
def sweep(): calls.append(1)

@app.status_field(name="calls")
def count(): return len(calls)

@app.on_event
def handle(event):
    if event == "bad": raise ValueError("bad")
"""


def test_ctl_does_what_it_says_and_status_shows_it(run_app: Callable[..., Process]) -> None:
    daemon = run_app(CONTROLLED).wait_ready()
    daemon.wait_until(lambda: daemon.status()["calls"] == 1)
    for event in ("bad", "bad"):
        daemon.send_event(event)
    daemon.wait_until(lambda: daemon.status()["events"]["dead"] == 2)

    def ctl(*arguments: str) -> tuple[int, str]:
        done = command(daemon, "ctl", *arguments)
        return done.returncode, done.stdout + done.stderr

    found = [
        ctl("pause", "events"),
        ctl("pause", "sweep"),
        ctl("level", "sweep", "error", "--for", "10m"),
        ctl("drop", "1", "--yes"),
    ]
    screen = command(daemon, "status").stdout
    ping = command(daemon, "ping").stdout
    found += [
        ctl("resume", "events"),
        ctl("resume", "events"),
        ctl("run-now", "sweep"),
        ctl("retry", "--all"),
        ctl("restart", "nobody"),
        ctl("reload"),
    ]
    daemon.wait_until(lambda: daemon.status()["calls"] == 2)
    stacks = ctl("stacks", "sweep")
    found.append(ctl("stop"))

    assert found == [
        (0, "Events are paused\n"),
        (0, "The slave sweep is paused\n"),
        (0, "The log level of billing.sweep is ERROR for 10m\n"),
        (0, "1 failed event is dropped\n"),
        (0, "Events are no longer paused\n"),
        (0, "Events are not paused\n"),
        (0, "The slave sweep is called now\n"),
        (0, "1 failed event is retried\n"),
        (1, f"daemonkit: {daemon.url} answered 404 There is no slave 'nobody'\n"),
        (0, "Reloaded; there is no configuration file to read again\n"),
        (0, "The daemon is stopping\n"),
    ]
    assert stacks[0] == 0
    assert "_run_calls" in stacks[1]
    assert "Paused: events by 127.0.0.1:" in screen
    assert "running, paused" in screen
    assert "ERROR for billing.sweep until " in screen
    assert "pause sweep" in screen
    assert re.fullmatch(r"OK\nPaused: events \(by .*\), slave sweep \(by .*\)\n", ping)
    assert daemon.popen.wait(30) == 0
