"""Partition test of the shared queue: one of three hosts is cut off from the engine, and healed.

    python -m tests.partition --seconds 30

Each host is a network namespace (ip-netns(8)) with a daemon and two clients; the first one also has
the engine. It needs root. In the end each event that was answered 200 must have been handled.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .engines import Engine
from .nodes import (
    NODE_TIMEOUT,
    PATIENCE,
    Node,
    Sender,
    handled_in,
    wait_until_empty,
    write_program,
)

HOSTS = 3
CLIENTS = 2
PORT = 5151
_CLONE_NEWNET = 0x40000000


class Result(NamedTuple):
    """What came of it; accepted_apart: what the host that was cut off has accepted meanwhile;
    resumed: seconds from the healing to its next accepted event."""

    answered: int
    missing: int
    twice: int
    accepted_apart: int
    resumed: float

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')}: {v}" for name, v in self._asdict().items())


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """Namespaces that are connected by a bridge, which is in one of its own."""

    def __init__(self) -> None:
        self._prefix = f"daemonkit{os.getpid()}"
        self.hosts = [f"{self._prefix}-{number}" for number in range(HOSTS)]
        self._switch = f"{self._prefix}-switch"

    def address(self, number: int) -> str:
        return f"10.77.0.{number + 1}"

    def open(self) -> None:
        for name in (*self.hosts, self._switch):
            _ip("netns", "add", name)
        inside = ("netns", "exec", self._switch, "ip")
        _ip(*inside, "link", "add", "bridge", "type", "bridge")
        _ip(*inside, "link", "set", "bridge", "up")
        for number, name in enumerate(self.hosts):
            port = f"port{number}"
            _ip(
                *("link", "add", "eth0", "netns", name, "type", "veth"),
                *("peer", "name", port, "netns", self._switch),
            )
            _ip(*inside, "link", "set", port, "master", "bridge", "up")
            host = ("netns", "exec", name, "ip")
            _ip(*host, "address", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip(*host, "link", "set", "eth0", "up")
            _ip(*host, "link", "set", "lo", "up")

    def set_link(self, number: int, state: str) -> None:
        """Cut a host off (`down`), so that packets are lost without a word, or heal it (`up`)."""
        _ip("netns", "exec", self._switch, "ip", "link", "set", f"port{number}", state)

    def close(self) -> None:
        for name in (*self.hosts, self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False)

    def enter(self, number: int) -> None:
        """Move the calling thread to a host."""
        path = f"/run/netns/{self.hosts[number]}"
        libc = ctypes.CDLL(None, use_errno=True)
        with open(path) as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't enter {path}")


class LocalSender(Sender):
    """Sends to the daemon on its own host."""

    def __init__(self, network: Network, host: int, first: int, *arguments: object) -> None:
        super().__init__(first, *arguments)  # type: ignore[arg-type]
        self._network, self._host = network, host

    def run(self) -> None:
        self._network.enter(self._host)
        super().run()


class _DistantEngine(Engine):
    """An engine on the first host."""

    def __init__(self, folder: Path, network: Network) -> None:
        super().__init__(folder, protected_mode="no")
        self._network = network

    def command(self, config: Path) -> list[str]:
        return ["ip", "netns", "exec", self._network.hosts[0], *super().command(config)]

    def wait(self) -> None:
        in_namespace(self._network, super().wait)


def in_namespace(network: Network, function: object) -> None:
    """Call a function on the first host."""
    errors: list[BaseException] = []

    def call() -> None:
        try:
            network.enter(0)
            function()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


@contextmanager
def opened() -> Iterator[Network]:
    """A network for the time of a `with` block."""
    network = Network()
    try:
        network.open()
        yield network
    finally:
        network.close()


def run(seconds: float, folder: Path) -> Result:
    """Run the test."""
    with opened() as network:
        engine = _DistantEngine(folder / "engine", network)
        engine.options["bind"] = "0.0.0.0"
        over = threading.Event()
        address = f"redis://{network.address(0)}:{engine.port}/0"
        config = write_program(folder, address)
        nodes = [
            Node(folder, config, PORT, prefix=("ip", "netns", "exec", name))
            for name in network.hosts
        ]
        senders = [
            LocalSender(network, host, CLIENTS * host + n, [nodes[host]], over, CLIENTS * HOSTS)
            for host in range(HOSTS)
            for n in range(CLIENTS)
        ]
        try:
            engine.start()
            for node in nodes:
                node.start()
            for sender in senders:
                sender.start()
            _wait_for_events(senders, 20)
            time.sleep(2)
            network.set_link(HOSTS - 1, "down")
            # What was under way is confirmed or refused by now.
            time.sleep(1)
            apart = senders[-CLIENTS:]
            before = sum(len(sender.answered) for sender in apart)
            time.sleep(max(seconds, 2 * NODE_TIMEOUT))
            accepted = sum(len(sender.answered) for sender in apart) - before
            count = sum(len(sender.answered) for sender in apart)
            network.set_link(HOSTS - 1, "up")
            healed = time.monotonic()
            while sum(len(sender.answered) for sender in apart) == count:
                assert time.monotonic() < healed + PATIENCE, "the host accepts nothing any more"
                time.sleep(0.01)
            resumed = time.monotonic() - healed
            time.sleep(2)
            over.set()
            for sender in senders:
                sender.join(PATIENCE)
            in_namespace(network, lambda: wait_until_empty(engine))
        finally:
            over.set()
            statuses = [node.end(signal.SIGTERM) for node in nodes if node.process is not None]
            engine.close()
    assert statuses == [0] * HOSTS, f"exit statuses {statuses}"
    handled = handled_in(folder)
    answered = [number for sender in senders for number in sender.answered]
    missing = sum(1 for number in answered if number not in handled)
    twice = sum(1 for times in handled.values() if times > 1)
    return Result(len(answered), missing, twice, accepted, round(resumed, 2))


def _wait_for_events(senders: list[LocalSender], count: int) -> None:
    until = time.monotonic() + PATIENCE
    while any(len(sender.answered) < count for sender in senders):
        assert time.monotonic() < until, "nothing is accepted"
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = run(options.seconds, Path(name))
    print(result)
    if result.missing or result.accepted_apart:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
