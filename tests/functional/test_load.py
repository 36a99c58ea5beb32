"""Overload: floods and too many clients, against a real process."""

from __future__ import annotations

import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .process import Process

Run = Callable[..., Process]

BURST = 20_000
COUNTS = """
import resource
from daemonkit import Daemon

app = Daemon('app')

@app.on_event
def handle(event):
    pass
"""


@contextmanager
def frozen(daemon: Process) -> Iterator[None]:
    """Suspend a process."""
    daemon.send_signal(signal.SIGSTOP)
    try:
        state = Path(f"/proc/{daemon.popen.pid}/stat")
        daemon.wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        yield
    finally:
        daemon.send_signal(signal.SIGCONT)


def drops_of(port: int) -> int:
    """The drops in the kernel's table, see proc(5)."""
    (row,) = [
        line.split()
        for table in ("/proc/net/udp", "/proc/net/udp6")
        for line in Path(table).read_text("ascii").splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}")
    ]
    return int(row[-1])


@pytest.mark.parametrize("options", [(), ("--set", "master.udp_receive_buffer=100000")])
def test_a_burst_to_a_stopped_process_is_accounted_for_to_the_last_datagram(
    run_app: Run, options: tuple[str, ...]
) -> None:
    daemon = run_app(COUNTS, *options).wait_ready()
    with frozen(daemon), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect((daemon.host, daemon.port))
        for _ in range(BURST):
            sender.send(b'{"Hello": "World"}')
    # No further datagram follows: a counter that comes with datagrams would not show the loss.
    udp = daemon.wait_until(
        lambda: (u := daemon.status()["udp"])["received"] + u["kernel_drops"] == BURST and u,
        "every datagram accounted for",
    )
    daemon.wait_until(lambda: daemon.status()["events"]["handled"] == udp["received"])

    assert udp["kernel_drops"] == drops_of(daemon.port) > 0
    assert (udp["invalid"], udp["refused"]) == (0, 0)
    daemon.wait_for(f"UDP: the kernel has dropped {udp['kernel_drops']} datagrams")
    assert daemon.stop() == 0


def test_without_descriptors_for_all_clients_the_newest_are_served(run_app: Run) -> None:
    limit = "\nresource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
    daemon = run_app(COUNTS + limit).wait_ready()
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection((daemon.host, daemon.port)))
        assert daemon.get("/ping").text == "OK\n"
        assert daemon.status()["http"]["shed"] > 100
        before = cpu_seconds(daemon)
        time.sleep(1)
        assert cpu_seconds(daemon) - before < 0.2, "it does not spin"

    daemon.wait_for("Too many open files: idle connections are closed for new ones")
    assert daemon.stop() == 0


def test_a_thousand_idle_clients_and_as_many_slow_ones_keep_nobody_waiting(run_app: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    raise_limit = f"\nresource.setrlimit(resource.RLIMIT_NOFILE, ({min(hard, 4096)}, {hard}))\n"
    # A request that had to wait would wait that long.
    daemon = run_app(COUNTS + raise_limit, "--set", "master.request_timeout=600").wait_ready()
    try:
        with ExitStack() as stack:
            for number in range(2000):
                sock = stack.enter_context(socket.create_connection((daemon.host, daemon.port)))
                if number % 4 == 0:
                    sock.sendall(b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
            daemon.send_event(1)
            counters = daemon.status()["http"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert counters["connections"] == 1000
    assert counters["shed"] >= 1000
    assert daemon.stop() == 0


def cpu_seconds(daemon: Process) -> float:
    """CPU time that a process has used."""
    columns = Path(f"/proc/{daemon.popen.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(columns[11]) + int(columns[12])) / 100
