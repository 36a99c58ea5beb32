"""Failover test of the shared queue: its primary is killed, and Sentinel promotes the replica.

    python -m tests.failover --kills 10 [--replicas 0]

Two daemons and four clients; `confirm: {replicas: 1}` unless `--replicas 0` is given. In the end, the
events that were answered 200 and not handled are counted.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import redis

from .engines import Engine
from .nodes import PATIENCE, Node, Sender, handled_in, wait_until_empty, write_program

CLIENTS = 4


class Result(NamedTuple):
    """What came of it; longest: the most seconds without an accepted event."""

    answered: int
    missing: int
    twice: int
    kills: int
    longest: float

    def __str__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self._asdict().items())


class Pair:
    """A primary with a replica, and the sentinel that watches them."""

    def __init__(self, folder: Path) -> None:
        self.engines = [Engine(folder / "a"), Engine(folder / "b")]
        first, second = self.engines
        for engine in self.engines:
            # By default they wait 5 s for more replicas.
            engine.options["repl-diskless-sync-delay"] = "0"
        first.start()
        second.options["replicaof"] = f"127.0.0.1 {first.port}"
        second.start()
        self.sentinel = Engine(folder / "sentinel", sentinel=True)
        self.sentinel.options = {
            "sentinel monitor": f"main 127.0.0.1 {first.port} 1",
            "sentinel down-after-milliseconds": "main 500",
            "sentinel failover-timeout": "main 2000",
        }
        self.sentinel.start()
        self.address = f"redis+sentinel://127.0.0.1:{self.sentinel.port}/0?service=main"

    def primary(self) -> Engine:
        """The engine that Sentinel names."""
        with self.sentinel.client(decode_responses=True) as client:
            port = int(client.sentinel_get_master_addr_by_name("main")[1])
        return next(engine for engine in self.engines if engine.port == port)

    def wait_in_sync(self) -> None:
        """Wait until the primary has its replica."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self.primary().client() as client:
                    info = client.info("replication")
                if info["role"] == "master" and info.get("slave0", {}).get("state") == "online":
                    return
            except redis.RedisError:
                pass
            assert time.monotonic() < until, "the replica doesn't come"
            time.sleep(0.05)

    def fail_over(self) -> None:
        """Kill the primary, wait for the next one, and start the old one as its replica."""
        old = self.primary()
        old.kill()
        until = time.monotonic() + PATIENCE
        while self.primary() is old:
            assert time.monotonic() < until, "Sentinel promotes nobody"
            time.sleep(0.02)
        old.start()
        # At once, as images for Kubernetes do; Sentinel itself takes some 10 s.
        with old.client() as client:
            client.replicaof("127.0.0.1", self.primary().port)

    def close(self) -> None:
        for engine in (*self.engines, self.sentinel):
            engine.close()


def run(kills: int, folder: Path, replicas: int) -> Result:
    """Run the test."""
    pair = Pair(folder)
    config = write_program(folder, pair.address, confirm={"replicas": replicas})
    nodes = [Node(folder, config) for _ in range(2)]
    over = threading.Event()
    senders = [Sender(number, nodes, over, CLIENTS) for number in range(CLIENTS)]
    longest = 0.0
    try:
        pair.wait_in_sync()
        for node in nodes:
            node.start()
        for node in nodes:
            node.wait()
        for sender in senders:
            sender.start()
        for _ in range(kills):
            time.sleep(1)
            count, began = _answered(senders), time.monotonic()
            pair.fail_over()
            killed = time.monotonic()
            pair.wait_in_sync()
            count = _answered(senders)
            while _answered(senders) == count:
                assert time.monotonic() < killed + PATIENCE, "nothing is accepted any more"
                time.sleep(0.01)
            longest = max(longest, time.monotonic() - began)
        time.sleep(1)
        over.set()
        for sender in senders:
            sender.join(PATIENCE)
        wait_until_empty(pair.primary())
    finally:
        over.set()
        statuses = [node.end(signal.SIGTERM) for node in nodes if node.process is not None]
        pair.close()
    assert statuses == [0, 0], f"exit statuses {statuses}"
    return _result(folder, senders, kills, longest)


def _answered(senders: list[Sender]) -> int:
    return sum(len(sender.answered) for sender in senders)


def _result(folder: Path, senders: list[Sender], kills: int, longest: float) -> Result:
    handled: Counter[int] = handled_in(folder)
    answered = [number for sender in senders for number in sender.answered]
    missing = sum(1 for number in answered if number not in handled)
    twice = sum(1 for times in handled.values() if times > 1)
    return Result(len(answered), missing, twice, kills, round(longest, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--replicas", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(run(options.kills, Path(name), options.replicas))


if __name__ == "__main__":
    main()
