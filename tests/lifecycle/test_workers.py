"""Real processes, on a real engine."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from daemonkit.config.defaults import Settings
from daemonkit.lifecycle.workers import Workers
from daemonkit.system.sockets import Sockets

from ..engines import Engine, free_port
from ..functional.process import Process

PROGRAM = """
import os, sys
from daemonkit import Daemon

app = Daemon("app")
file = os.open("handled", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
if os.path.exists("broken"):
    sys.exit("broken")

@app.on_event
def handle(event):
    os.write(file, b"%d\\n" % event)

@app.route("/pid")
def pid():
    return str(os.getpid())

@app.route("/die")
def die():
    os._exit(9)
"""


class Run(Process):
    """`daemonkit run --workers`."""

    def __init__(
        self, folder: Path, queue: str, workers: int = 2, *options: str, **env: str
    ) -> None:
        (folder / "mymod.py").write_text(PROGRAM)
        master = {"queue": queue, "node_timeout": 2, "log_level": "INFO"}
        (folder / "cfg.yaml").write_text(json.dumps({"master": master}))
        super().__init__(
            [
                *("-m", "daemonkit", "run", "mymod", "--config", "cfg.yaml", "--port", "0"),
                *("--workers", str(workers), *options),
            ],
            folder,
            {**env},
        )

    def wait_started(self) -> Run:
        self.port = int(self.wait_for(r"Listening on \S+:(?P<port>\d+), with")["port"])
        self.wait_for(r"Started, all \d workers")
        return self

    def pids(self) -> set[int]:
        """The processes that answer; new connections reach each of them sooner or later."""
        return {int(requests.get(f"http://127.0.0.1:{self.port}/pid").text) for _ in range(30)}

    def count(self, pattern: str) -> int:
        return len(re.findall(pattern, self.out))

    def handled(self) -> list[int]:
        file = self.folder / "handled"
        return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.fixture
def run(tmp_path: Path, engine: Engine) -> Iterator[Callable[..., Run]]:
    started: list[Run] = []

    def start(*arguments: Any, **env: str) -> Run:
        started.append(Run(tmp_path, engine.address(), *arguments, **env))
        return started[-1]

    yield start
    for process in started:
        process.close()


def test_workers_share_the_port_and_the_queue(run: Callable[..., Run]) -> None:
    daemon = run(3).wait_started()
    assert len(daemon.pids()) == 3
    for number in range(60):
        requests.post(f"http://127.0.0.1:{daemon.port}/events", json=number).raise_for_status()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(60, 80):
            sock.sendto(b"%d" % number, ("127.0.0.1", daemon.port))
    daemon.wait_until(lambda: len(daemon.handled()) == 80)
    assert sorted(daemon.handled()) == list(range(80))
    nodes = daemon.wait_until(lambda: len(n := daemon.status()["events"]["nodes"]) == 3 and n)

    assert {node["pid"] for node in nodes} == daemon.pids()
    assert daemon.stop() == 0
    assert daemon.count("Worker . has stopped|Worker ., pid \\d+, has stopped") == 3
    assert daemon.err == ""


def test_a_worker_that_dies_is_started_again(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    before = daemon.pids()
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"http://127.0.0.1:{daemon.port}/die")
    # The second one may be the first one's successor, which serves before it says "Started".
    ended = r"ERROR +Worker \d, pid \d+, has ended with exit status 9"
    daemon.wait_until(lambda: daemon.count(ended) == 2, "two ends")
    daemon.wait_until(lambda: len(daemon.pids()) == 2)

    assert daemon.pids() != before
    assert daemon.stop(signal.SIGINT) == 0


def test_workers_are_replaced_without_refusing_a_request(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    before = daemon.pids()
    failures: list[object] = []
    sent: list[int] = []
    over = threading.Event()

    def send(first: int) -> None:
        number = first
        with requests.Session() as session:
            while not over.is_set():
                try:
                    answer = session.post(f"http://127.0.0.1:{daemon.port}/events", json=number)
                    answer.raise_for_status()
                    sent.append(number)
                except requests.RequestException as error:
                    failures.append(error)
                number += 4

    senders = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for sender in senders:
        sender.start()
    url = f"http://127.0.0.1:{daemon.port}/control/replace"
    answer = requests.post(url, timeout=20)
    assert answer.json()["message"] == "The 2 workers are being replaced, one after another"
    daemon.wait_until(lambda: daemon.count(r"pid \d+, has stopped") == 2, "two that stopped")
    over.set()
    for sender in senders:
        sender.join()

    assert failures == []
    assert not daemon.pids() & before
    daemon.wait_until(lambda: len(daemon.handled()) == len(sent))
    assert sorted(daemon.handled()) == sorted(sent)
    assert daemon.stop() == 0


def test_a_replacement_that_fails_leaves_the_others(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    before = daemon.pids()
    (daemon.folder / "broken").touch()
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait_for(r"Worker 1 is not replaced, nor are those after it: the new one has ended")

    assert daemon.pids() == before
    (daemon.folder / "broken").unlink()
    daemon.send_signal(signal.SIGUSR2)
    daemon.wait_until(lambda: daemon.count(r"pid \d+, has stopped") == 2, "two that stopped")
    assert daemon.stop() == 0


def test_signals_are_forwarded(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_until(lambda: daemon.count(r"INFO +.*[Rr]eload") >= 2, "two reloads")
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_until(lambda: daemon.count(r"INFO +received SIGUSR1") == 2, "two lists of stacks")

    assert daemon.stop() == 0


def test_a_worker_that_can_not_start_ends_all(tmp_path: Path, engine: Engine) -> None:
    with engine.client() as client:
        client.set("{daemonkit:app}:layout", 9)
    daemon = Run(tmp_path, engine.address())
    try:
        assert daemon.wait() == 3
        assert "has layout 9" in daemon.out
    finally:
        daemon.close()


def test_workers_end_with_a_parent_that_is_killed(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    pids = daemon.pids()
    daemon.popen.kill()
    daemon.popen.wait()

    def gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except FileNotFoundError:
            return True

    daemon.wait_until(lambda: all(map(gone, pids)), "the end of the workers")


def test_a_port_that_is_in_use_is_an_error(tmp_path: Path, engine: Engine) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6) as taken:
        daemon = Run(tmp_path, engine.address(), 2, "--port", str(taken.getsockname()[1]))
        try:
            assert daemon.wait() == 3
            assert "is it running already?" in daemon.err
        finally:
            daemon.close()


def test_what_is_asked_of_all_is_done_by_all(run: Callable[..., Run]) -> None:
    daemon = run(2).wait_started()
    assert re.search(r" worker 2 MainThread +app +INFO +Started\n", daemon.out)
    url = f"http://127.0.0.1:{daemon.port}/control"
    answer = requests.post(f"{url}/reload", timeout=20).json()
    assert answer["message"].endswith(" of 2; the others are asked to reload, too)")
    for number in (1, 2):
        daemon.wait_until(lambda n=number: daemon.count(rf"worker {n} .* Reloaded\n") == 1)
    requests.post(f"{url}/stop", timeout=20).raise_for_status()

    assert daemon.wait() == 0
    assert "ERROR" not in daemon.out


def test_each_worker_has_an_admin_port(run: Callable[..., Run]) -> None:
    first = next(port for port in iter(free_port, None) if is_free(port + 1))
    daemon = run(2, "--set", f"master.admin=127.0.0.1:{first}").wait_started()
    for number, port in enumerate((first, first + 1), 1):
        url = f"http://127.0.0.1:{port}"
        answer = requests.post(f"{url}/control/pause", json={"events": True}, timeout=20)
        assert answer.json()["message"] == f"Events are paused (worker {number} of 2)"
        assert requests.get(f"{url}/status", timeout=20).json()["message"]["paused"]
    # The successor has it, too, beside its predecessor.
    requests.post(f"http://127.0.0.1:{first}/control/replace", timeout=20).raise_for_status()
    daemon.wait_until(lambda: daemon.count(r"pid \d+, has stopped") == 2, "two that stopped")
    assert not requests.get(f"http://127.0.0.1:{first}/status", timeout=20).json()["message"][
        "paused"
    ]
    assert daemon.stop() == 0


def test_an_admin_port_that_is_in_use_is_an_error(tmp_path: Path, engine: Engine) -> None:
    first = next(port for port in iter(free_port, None) if is_free(port + 1))
    admin = ("--set", f"master.admin=127.0.0.1:{first}")
    for options in (("--port", str(first + 1)), ("--set", "master.admin=127.0.0.1:65535")):
        daemon = Run(tmp_path, engine.address(), 2, *admin, *options)
        try:
            assert daemon.wait() == 3
            assert "master.admin" in daemon.err
        finally:
            daemon.close()


def test_a_reload_during_the_start_is_made_up_for(run: Callable[..., Run]) -> None:
    daemon = run(2)
    daemon.wait_for("Listening on")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_started()
    for number in (1, 2):
        daemon.wait_until(lambda n=number: daemon.count(rf"worker {n} .* Reloaded\n") == 1)
    assert daemon.stop() == 0


def is_free(port: int) -> bool:
    with socket.socket() as sock, suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


def test_a_worker_that_hangs_is_aborted(run: Callable[..., Run]) -> None:
    daemon = run(2, WATCHDOG_USEC="1000000").wait_started()
    pid = daemon.pids().pop()
    os.kill(pid, signal.SIGSTOP)
    daemon.wait_for(rf"Worker \d, pid {pid}, has not been healthy for 1 s: it is aborted")
    # It can't even take that.
    daemon.wait_for(rf"Worker \d, pid {pid}, has been killed by SIGKILL")
    daemon.wait_until(lambda: daemon.count(r"Started\n") == 3, "another start")
    assert daemon.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_during_the_start_is_orderly(run: Callable[..., Run], number: int) -> None:
    daemon = run(2)
    daemon.wait_for("Listening on")
    assert daemon.stop(number) == 0
    assert "ERROR" not in daemon.out


def test_a_worker_that_can_not_be_forked_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    workers = Workers(1, ["x"], Settings(), logging.getLogger("app"), {})
    attempts: list[float] = []

    def fail(*_: object) -> None:
        attempts.append(time.monotonic())
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("daemonkit.lifecycle.workers.start_worker", fail)
    slot = workers._slots[0]
    with socket.socket() as sock:
        monkeypatch.setattr(workers, "_bind", lambda **_: Sockets(sock, None, "", 1))
        for _ in range(3):
            due = workers._run_due(slot.start_at)
            assert due == slot.start_at
        workers._close()

    assert len(attempts) == 3
    assert caplog.text.count("Worker 1 can't be started: ") == 3


def test_systemd_is_told(run: Callable[..., Run], tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        sock.settimeout(20)
        daemon = run(2, NOTIFY_SOCKET=path, WATCHDOG_USEC="1000000").wait_started()
        messages = set()
        while not {b"READY=1", b"WATCHDOG=1"} <= messages:
            messages.add(sock.recv(1000))
        daemon.send_signal(signal.SIGHUP)
        while not sock.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
            pass
        assert sock.recv(1000) in (b"READY=1", b"WATCHDOG=1")
        daemon.stop()
        while b"STOPPING=1" not in messages:
            messages.add(sock.recv(1000))
