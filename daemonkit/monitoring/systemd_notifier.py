"""Telling systemd how the daemon is: sd_notify(3), on a thread of its own."""

from __future__ import annotations

import logging
import math
import threading
import time

from ..runtime.timer import Timer
from ..system.systemd import NotifySocket
from .health import DRAINING, RUNNING, STOPPING, Health

AGAIN = 0.1
"""Seconds before a message is sent again that the socket had no room for."""
LAST_TRIES = 0.5
"""Seconds for what is left to say at the end: nobody may be kept waiting by a full socket."""
EXTEND_EVERY, EXTEND_BY = 5.0, 15.0
"""Seconds: while stopping, systemd is asked again and again for a little more time, so that it
waits as long as `shutdown_timeout` says, and no longer for a process that hangs."""


class SystemdNotifier(Timer):
    """Watches the health and sends READY, STATUS, WATCHDOG, RELOADING, STOPPING and
    EXTEND_TIMEOUT_USEC; does nothing where nobody listens.

    watchdog: seconds within which WATCHDOG=1 is expected, None for never. It is sent while there
    is no problem but such as the daemon can bear. It has its own thread: the daemon's timer logs,
    and may block in the log.
    """

    def __init__(
        self,
        sock: NotifySocket,
        health: Health,
        watchdog: float | None,
        logger: logging.Logger,
    ) -> None:
        super().__init__(logger, "systemd", "the systemd notifier")
        self._socket = sock
        self._health = health
        # Half of the time, as sd_watchdog_enabled(3) recommends.
        self._feed_every = math.inf if watchdog is None else watchdog / 2
        self._lock = threading.Lock()
        self._messages: dict[str, str] = {}
        self._phase = health.phase
        self._status = ""
        self._feed_at = math.inf if watchdog is None else 0.0
        self._extend_at = 0.0
        self._stopping = False
        self._said_all = threading.Event()
        self.add(self._run_due)

    def start(self) -> None:
        if self._socket.is_open:
            self._health.add_listener(self.wake)
            super().start()

    def request_stop(self) -> None:
        """Say what there is to say, then stop."""
        self._stopping = True
        self.wake()

    def join(self, timeout: float) -> bool:
        if self.running_threads():
            self._said_all.wait(min(timeout, LAST_TRIES))
        super().request_stop()
        stopped = super().join(timeout)
        if stopped:
            self._socket.close()
        return stopped

    def reloading(self) -> None:
        """Tell that the configuration is being loaded; `reloaded` has to follow."""
        # The same clock as systemd's, in microseconds (clock_gettime(2), CLOCK_MONOTONIC).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._note("RELOADING", f"1\nMONOTONIC_USEC={microseconds}")
        self.wake()

    def reloaded(self) -> None:
        """Tell that loading the configuration is over."""
        if self._health.is_ready:
            self._note("READY")
            self.wake()

    def _note(self, key: str, value: str = "1") -> None:
        """Have a message sent, after all others; one of its kind that still waits is outdated."""
        with self._lock:
            self._messages.pop(key, None)
            self._messages[key] = f"{key}={value}"

    def _run_due(self, now: float) -> float:
        """Say what there is to say; returns when there is more of it."""
        stopping = self._stopping
        self._observe(now)
        if not self._deliver():
            return now + AGAIN
        if stopping:
            self._said_all.set()
        extend_at = self._extend_at if self._phase in (DRAINING, STOPPING) else math.inf
        return min(self._feed_at, extend_at)

    def _observe(self, now: float) -> None:
        """Note down what there is to tell."""
        health = self._health
        phase = health.phase
        if phase != self._phase:
            if phase == RUNNING:
                self._note("READY")
            elif self._phase not in (DRAINING, STOPPING):
                self._note("STOPPING")
            self._phase = phase
        status = " ".join(health.summary().split())
        if status != self._status:
            self._status = status
            self._note("STATUS", status)
        if phase in (DRAINING, STOPPING) and now >= self._extend_at:
            self._extend_at = now + EXTEND_EVERY
            self._note("EXTEND_TIMEOUT_USEC", str(int(EXTEND_BY * 1e6)))
        if now >= self._feed_at:
            self._feed_at = now + self._feed_every
            # What hangs while stopping is ended by the deadline.
            if phase != RUNNING or all(problem.tolerable for problem in health.problems()):
                self._note("WATCHDOG")

    def _deliver(self) -> bool:
        """Send what is noted down; False when there was no room for all of it."""
        with self._lock:
            for key, message in list(self._messages.items()):
                if self._socket.send(message) is False:
                    return False
                del self._messages[key]
        return True
