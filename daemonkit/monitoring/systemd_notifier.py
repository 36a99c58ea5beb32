"""Reports the daemon's state to systemd: sd_notify(3)."""

from __future__ import annotations

import logging
import math
import threading

from ..config.secrets import redact
from ..runtime.timer import Timer
from ..system.systemd import NotifySocket, reload_time
from .health import DRAINING, RUNNING, STOPPING, Health

RETRY_DELAY = 0.1
"""Seconds before a message is sent again for which the socket had no room."""
FINAL_TIMEOUT = 0.5
"""Seconds for the last messages: a full socket must not delay the exit."""
EXTEND_EVERY, EXTEND_BY = 5.0, 15.0
"""Seconds: while stopping, systemd's timeout is extended step by step. So systemd waits as long as
`shutdown_timeout` says, but not longer for a process that hangs."""


class SystemdNotifier(Timer):
    """Watches the health and sends READY, STATUS, WATCHDOG, RELOADING, STOPPING and
    EXTEND_TIMEOUT_USEC; does nothing without a socket.

    watchdog: seconds within which systemd expects WATCHDOG=1, None for never. It is sent while all
    problems are tolerable. The notifier does not share the daemon's timer, which may block in the
    log.
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
        # Half of the timeout, as sd_watchdog_enabled(3) recommends.
        self._feed_interval = math.inf if watchdog is None else watchdog / 2
        self._lock = threading.Lock()
        self._queued: dict[str, str] = {}
        self._phase = health.phase
        self._status = ""
        self._feed_at = math.inf if watchdog is None else 0.0
        self._extend_at = 0.0
        self._last_requested = False
        self._all_sent = threading.Event()
        self.add(self.run_due)

    def start(self) -> None:
        if self._socket.is_open:
            self._health.add_listener(self.wake)
            super().start()

    def request_stop(self) -> None:
        """Send the last messages, then stop."""
        self._last_requested = True
        self.wake()

    def join(self, timeout: float) -> bool:
        if self.running_threads():
            self._all_sent.wait(min(timeout, FINAL_TIMEOUT))
        super().request_stop()
        stopped = super().join(timeout)
        if stopped:
            self._socket.close()
        return stopped

    def reloading(self) -> None:
        """Report that the configuration is being loaded; `reloaded` must follow."""
        self._queue("RELOADING", f"1\n{reload_time()}")
        self.wake()

    def reloaded(self) -> None:
        """Report that loading the configuration has ended."""
        if self._health.is_running:
            self._queue("READY")
            self.wake()

    def _queue(self, key: str, value: str = "1") -> None:
        """Queue a message; it replaces one with the same key."""
        with self._lock:
            self._queued.pop(key, None)
            self._queued[key] = f"{key}={value}"

    def run_due(self, now: float) -> float:
        """Send what is due; returns when to call this again, in monotonic seconds."""
        is_last = self._last_requested
        self._queue_changes(now)
        if not self._send_queued():
            return now + RETRY_DELAY
        if is_last:
            self._all_sent.set()
        extend_at = self._extend_at if self._phase in (DRAINING, STOPPING) else math.inf
        return min(self._feed_at, extend_at)

    def _queue_changes(self, now: float) -> None:
        """Queue what has changed or is due."""
        health = self._health
        phase = health.phase
        if phase != self._phase:
            if phase == RUNNING:
                self._queue("READY")
            elif self._phase not in (DRAINING, STOPPING):
                self._queue("STOPPING")
            self._phase = phase
        status = " ".join(redact(health.summary()).split())
        if status != self._status:
            self._status = status
            self._queue("STATUS", status)
        if phase in (DRAINING, STOPPING) and now >= self._extend_at:
            self._extend_at = now + EXTEND_EVERY
            self._queue("EXTEND_TIMEOUT_USEC", str(int(EXTEND_BY * 1e6)))
        if now >= self._feed_at:
            self._feed_at = now + self._feed_interval
            # Stopping has its own deadline.
            if phase != RUNNING or all(problem.tolerable for problem in health.problems()):
                self._queue("WATCHDOG")

    def _send_queued(self) -> bool:
        """Send the queued messages; False if the socket had no room for one."""
        with self._lock:
            for key, message in list(self._queued.items()):
                if self._socket.send(message) is False:
                    return False
                del self._queued[key]
        return True
