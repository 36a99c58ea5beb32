"""The place of one worker among several: who is in it, and when the next one is started."""

from __future__ import annotations

import signal

from ..runtime.clock import monotonic
from ..system.sockets import Sockets
from .worker_process import WorkerProcess

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds until a worker is started again that has died for the second time, doubled each time."""
STABLE = 60.0
"""Seconds after which a worker that dies is started again at once."""


class WorkerSlot:
    """number: from 1; failures: how often its worker died in a row."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sockets: Sockets | None = None
        self.worker: WorkerProcess | None = None
        self.successor: WorkerProcess | None = None
        self.failures = 0
        self.start_at = 0.0

    def processes(self) -> list[WorkerProcess]:
        return [process for process in (self.worker, self.successor) if process is not None]

    def delay(self) -> float:
        """Set when the next worker is started; returns the seconds until then."""
        seconds = 0.0
        if self.failures:
            seconds = min(FIRST_DELAY * 2.0 ** min(self.failures - 1, 60), LONGEST_DELAY)
        self.failures += 1
        self.start_at = monotonic() + seconds
        return seconds

    def close(self) -> None:
        """Close its sockets."""
        if self.sockets is not None:
            self.sockets.close()
            self.sockets = None


def how_ended(status: int) -> str:
    """How a process has ended."""
    if status < 0:
        # The realtime signals have no names.
        known = signal.valid_signals() & set(signal.Signals)
        name = signal.Signals(-status).name if -status in known else f"signal {-status}"
        return f"been killed by {name}"
    return f"ended with exit status {status}"
