"""Real engines for the shared queue: Debian's redis-server, each in a process and a folder of its
own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

PATIENCE = 30.0


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Engine:
    """A redis-server that may be killed, suspended and started again.

    folder: for its files; options: of its configuration, `appendonly` and `everysec` by default.
    """

    def __init__(self, folder: Path, *, sentinel: bool = False, **options: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._sentinel = sentinel
        defaults = {} if sentinel else {"appendonly": "yes", "appendfsync": "everysec", "save": ""}
        self.options = {**defaults, **options}
        self.process: subprocess.Popen[bytes] | None = None

    def address(self, database: int = 0) -> str:
        """What `queue` is to be."""
        return f"redis://127.0.0.1:{self.port}/{database}"

    def start(self) -> Engine:
        """Start it, and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            f"{name.replace('_', '-')} {value or chr(34) * 2}"
            for name, value in self.options.items()
        ]
        address = [] if "bind" in self.options else ["bind 127.0.0.1"]
        own = [f"port {self.port}", *address, f"dir {self._folder}", "daemonize no"]
        config = self._folder / "engine.conf"
        # What Sentinel has written there is kept.
        if not config.exists():
            config.write_text("\n".join([*own, *lines, ""]))
        with (self._folder / "engine.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(config), stdout=log, stderr=log)
        self.wait()
        return self

    def command(self, config: Path) -> list[str]:
        """What starts it."""
        return ["redis-server", str(config), *(["--sentinel"] if self._sentinel else [])]

    def wait(self) -> None:
        """Wait until it answers."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                with self.client(password=self.options.get("requirepass")) as client:
                    client.ping()
                    return
            except redis.RedisError:
                assert self.process is not None
                log = self._folder / "engine.log"
                assert self.process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.01)

    def client(self, **options: Any) -> redis.Redis:
        """A client of it."""
        return redis.Redis(port=self.port, **options)

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it, and start it again with what is in its files."""
        self.kill()
        self.start()

    def send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_engine(folder: Path, **options: str) -> Iterator[Engine]:
    """A running engine."""
    engine = Engine(folder, **options)
    try:
        yield engine.start()
    finally:
        engine.close()
