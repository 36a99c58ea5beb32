from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from daemonkit.lifecycle.worker_process import (
    VARIABLE,
    WorkerPlace,
    WorkerProcess,
    start_worker,
    worker_place,
)

PLACE = WorkerPlace(2, 3, os.getpid())


def wait(process: WorkerProcess) -> int:
    until = time.monotonic() + 20
    while (status := process.status()) is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    return status


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (f"2/3/{os.getppid()}", WorkerPlace(2, 3, os.getppid())),
        ("2/3/1000000", None),
        ("2/3", None),
        ("a/b/c", None),
        ("", None),
        (None, None),
    ],
)
def test_a_worker_knows_its_place(text: str | None, place: WorkerPlace | None) -> None:
    assert worker_place({} if text is None else {VARIABLE: text}) == place
    assert str(PLACE) == "worker 2 of 3"


def test_a_worker_is_given_its_sockets_and_what_it_is(tmp_path: Path) -> None:
    program = (
        "import os, socket\n"
        "names = [socket.socket(fileno=fd).getsockname()[1] for fd in (3, 4)]\n"
        "e = os.environ\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(repr((names, e['LISTEN_FDS'],\n"
        "    e['LISTEN_PID'] == str(os.getpid()), e['DAEMONKIT_WORKER'], e['NOTIFY_SOCKET'],\n"
        "    'WATCHDOG_USEC' in e, e['KEPT'], len(os.listdir('/proc/self/fd')))))\n"
    )
    environ = {"WATCHDOG_USEC": "1", "NOTIFY_SOCKET": "/systemd", "KEPT": "yes"}
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
        command = [sys.executable, "-S", "-c", program]
        process = start_worker(command, [one, two], PLACE, environ, "@here")
        assert wait(process) == 0
        ports = [sock.getsockname()[1] for sock in (one, two)]

    seen = (tmp_path / "seen").read_text()
    assert seen == repr((ports, "2", True, f"2/3/{os.getpid()}", "@here", True, "yes", 5))


def test_how_a_worker_ended_is_known() -> None:
    process = start_worker([sys.executable, "-S", "-c", "raise SystemExit(3)"], [], PLACE, {}, "@x")
    assert wait(process) == 3
    process.send(signal.SIGTERM)
    process = start_worker(
        [sys.executable, "-S", "-c", "import time; time.sleep(60)"], [], PLACE, {}, "@x"
    )
    assert process.status() is None
    process.send(signal.SIGKILL)
    assert wait(process) == -signal.SIGKILL
    assert not process.is_stopping
    assert process.status() == 0, "somebody else has waited for it"


def test_a_command_that_is_missing_ends_at_once() -> None:
    assert wait(start_worker(["/missing"], [], PLACE, {}, "@x")) == 127
