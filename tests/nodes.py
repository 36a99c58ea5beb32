"""Crash test of the shared queue: daemons and their engine are killed and suspended under load.

    python -m tests.nodes --seconds 20 [--fsync always] [--seed N]

Three daemons share a queue in a redis-server, and six clients send them numbered events. Meanwhile
daemons and the engine are killed (SIGKILL), and daemons suspended (SIGSTOP) for longer than
`node_timeout`. In the end each event that was answered 200 must have been handled.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from .engines import Engine, free_port

NODES, CLIENTS = 3, 6
NODE_TIMEOUT = 2.0
ACK_BATCH = 100
PATIENCE = 60.0
PROGRAM = """
import os
from daemonkit import Daemon

app = Daemon("nodes")
file = os.open(f"handled-{os.getpid()}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@app.on_event(threads=2)
def handle(event):
    os.write(file, b"%d\\n" % event)
"""


class Result(NamedTuple):
    """What came of it; twice: how many answered or other events were handled more than once."""

    answered: int
    missing: int
    twice: int
    node_kills: int
    engine_kills: int
    suspensions: int

    def __str__(self) -> str:
        return ", ".join(
            f"{name.replace('_', ' ')}: {value}" for name, value in self._asdict().items()
        )

    @property
    def most_twice(self) -> int:
        """How many may have been handled twice: the results that a node had not saved, and what its
        two threads were working on, at each kill and suspension."""
        each = 2 * ACK_BATCH + 2
        return each * (self.node_kills + self.suspensions + NODES * self.engine_kills)


@dataclass
class Node:
    """A daemon that is started again when it is killed."""

    folder: Path
    config: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    prefix: tuple[str, ...] = ()
    """What runs the command, in a network namespace for instance."""

    def start(self) -> None:
        with (self.folder / "nodes.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(*self.prefix, sys.executable, "-m", "daemonkit", "run", "program.py"),
                    *("--config", str(self.config), "--port", str(self.port)),
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.send_signal(number)
        return self.process.wait(PATIENCE)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Send a request; raises OSError or HTTPException."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def wait(self) -> None:
        """Wait until it is ready."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                if self.ask("GET", "/ready")[0] == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            assert time.monotonic() < until, "a daemon didn't become ready"
            time.sleep(0.05)


class Sender(threading.Thread):
    """Sends numbered events, on one connection to each daemon."""

    def __init__(
        self, first: int, nodes: list[Node], over: threading.Event, clients: int = CLIENTS
    ) -> None:
        super().__init__(daemon=True)
        self.answered: dict[int, float] = {}
        """Events that were answered 200, and when."""
        self._numbers = iter(range(first, sys.maxsize, clients))
        self._nodes = nodes
        self._over = over
        self._random = random.Random(first)

    def run(self) -> None:
        while not self._over.is_set():
            node = self._random.choice(self._nodes)
            connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
            try:
                for _ in range(50):
                    number = next(self._numbers)
                    connection.request("POST", "/events", str(number))
                    response = connection.getresponse()
                    response.read()
                    if response.status == 200:
                        self.answered[number] = time.monotonic()
                    else:
                        self._over.wait(0.02)
            except (OSError, http.client.HTTPException):
                self._over.wait(0.02)
            finally:
                connection.close()


def write_program(folder: Path, queue: str, **master: object) -> Path:
    """Write the program and its configuration; returns the latter's path."""
    (folder / "program.py").write_text(PROGRAM)
    config = folder / "config.yaml"
    settings = {
        "queue": queue,
        "node_timeout": NODE_TIMEOUT,
        "ack_batch": ACK_BATCH,
        "queue_size": 1_000_000,
        "log_level": "INFO",
        **master,
    }
    config.write_text(json.dumps({"master": settings}))
    return config


def run(seconds: float, folder: Path, fsync: str, seed: int) -> Result:
    """Run the test."""
    chance = random.Random(seed)
    engine = Engine(folder / "engine", appendfsync=fsync).start()
    config = write_program(folder, engine.address())
    nodes = [Node(folder, config) for _ in range(NODES)]
    over = threading.Event()
    senders = [Sender(number, nodes, over) for number in range(CLIENTS)]
    counts: Counter[str] = Counter()
    engine_kills: list[float] = []
    try:
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait()
        for sender in senders:
            sender.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(chance.uniform(0.3, 1.5))
            _harm(chance, nodes, engine, counts, engine_kills)
        over.set()
        for sender in senders:
            sender.join(PATIENCE)
            assert not sender.is_alive(), "a sender hangs"
        wait_until_empty(engine)
    finally:
        over.set()
        statuses = [node.end(signal.SIGTERM) for node in nodes if node.process is not None]
        engine.close()
    assert statuses == [0] * NODES, f"exit statuses {statuses}"
    return _result(folder, senders, counts, engine_kills)


def _harm(
    chance: random.Random,
    nodes: list[Node],
    engine: Engine,
    counts: Counter[str],
    engine_kills: list[float],
) -> None:
    node = chance.choice(nodes)
    match chance.choice(("node", "node", "engine", "suspension")):
        case "node":
            node.end(signal.SIGKILL)
            node.start()
            counts["node_kills"] += 1
        case "engine":
            engine_kills.append(time.monotonic())
            engine.kill()
            time.sleep(chance.uniform(0.0, 1.0))
            engine.start()
            counts["engine_kills"] += 1
        case _:
            node.send_signal(signal.SIGSTOP)
            time.sleep(1.5 * NODE_TIMEOUT)
            node.send_signal(signal.SIGCONT)
            counts["suspensions"] += 1


def wait_until_empty(engine: Engine) -> None:
    """Wait until no event waits any more."""
    until = time.monotonic() + PATIENCE
    with engine.client(decode_responses=True) as client:
        while True:
            waiting = client.hget("{daemonkit:nodes}:counts", "waiting")
            left = client.xlen("{daemonkit:nodes}:stream")
            if waiting == "0" and left == 0:
                return
            assert time.monotonic() < until, f"{waiting} events wait, in {left} entries"
            time.sleep(0.05)


def handled_in(folder: Path) -> Counter[int]:
    """How often each event was handled."""
    handled: Counter[int] = Counter()
    for file in folder.glob("handled-*"):
        handled.update(map(int, file.read_text().split()))
    return handled


def _result(
    folder: Path, senders: list[Sender], counts: Counter[str], engine_kills: list[float]
) -> Result:
    handled = handled_in(folder)
    answered = {n: at for sender in senders for n, at in sender.answered.items()}
    missing = {n: at for n, at in answered.items() if n not in handled}
    for number, at in missing.items():
        before = min((kill - at for kill in engine_kills if kill >= at), default=None)
        print(f"event {number} is missing; seconds until the engine was killed: {before}")
    twice = sum(1 for times in handled.values() if times > 1)
    return Result(
        len(answered),
        len(missing),
        twice,
        counts["node_kills"],
        counts["engine_kills"],
        counts["suspensions"],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--fsync", choices=("always", "everysec"), default="everysec")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        result = run(options.seconds, Path(name), options.fsync, options.seed)
    print(f"{result}, at most {result.most_twice} are expected to be")
    if result.missing or result.twice > result.most_twice:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
