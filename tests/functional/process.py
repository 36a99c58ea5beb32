"""A daemon in a real process: tests send it requests and signals, and read its log."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from daemonkit.testing import Client

LISTENING = re.compile(r"Listening on (?:\[(?P<v6>.+)\]|(?P<v4>[^:]+)):(?P<port>\d+)")


class Process(Client):
    """A process whose stdout and stderr go to files that `out` and `err` read.

    env: added to this process's environment, or taken from it where None; pass_fds: descriptors it
    keeps.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        env: dict[str, str | None] | None = None,
        pass_fds: Sequence[int] = (),
    ):
        super().__init__("127.0.0.1", timeout=60.0)
        self.folder = folder
        self._out, self._err = folder / "stdout.log", folder / "stderr.log"
        self.seconds_to_start = 0.0
        self._began = time.monotonic()
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                pass_fds=pass_fds,
                stdout=out,
                stderr=err,
                env={name: value for name, value in environ.items() if value is not None},
            )

    @property
    def out(self) -> str:
        return self._out.read_text("utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text("utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log; fails at once when the process ends without it."""

        def look() -> re.Match[str] | None:
            ended = self.popen.poll()
            found = re.search(pattern, self.out)
            assert found or ended is None, f"exit status {ended}\n{self.out}\n{self.err}"
            return found

        return self.wait_until(look, f"{pattern!r} in the log")

    def wait_ready(self) -> Process:
        """Wait until it has started, and read its address from the log."""
        self.port = int(self.wait_for(LISTENING.pattern)["port"])
        self.wait_for(r" MainThread +.+ INFO +Started\n")
        self.seconds_to_start = time.monotonic() - self._began
        return self

    def soon(self, seconds: float) -> float:
        """The seconds to allow, scaled by how much slower this machine is than a fast one."""
        return seconds * max(1.0, self.seconds_to_start / 0.5)

    def send_signal(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; returns the exit status, negative for a signal that killed it."""
        return self.popen.wait(self.timeout)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send_signal(number)
        return self.wait()

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()


def seconds_of(action) -> float:
    """How long a call takes."""
    before = time.monotonic()
    action()
    return time.monotonic() - before
