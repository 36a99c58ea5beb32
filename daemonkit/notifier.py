"""Telling systemd how the daemon is: sd_notify(3), on a thread of its own."""

from __future__ import annotations

import threading
import time

from .health import DRAINING, RUNNING, STOPPING, Health
from .systemd import NotifySocket

AGAIN = 0.1
"""Seconds before a message is sent again that the socket had no room for."""
LAST_TRIES = 0.5
"""Seconds for what is left to say at the end: nobody may be kept waiting by a full socket."""
EXTEND_EVERY, EXTEND_BY = 5.0, 15.0
"""Seconds: while stopping, systemd is asked again and again for a little more time, so that it
waits as long as `shutdown_timeout` says, and no longer for a process that hangs."""


class Notifier:
    """Watches the health and sends READY, STATUS, WATCHDOG, RELOADING, STOPPING and
    EXTEND_TIMEOUT_USEC; does nothing where nobody listens.

    watchdog: seconds within which WATCHDOG=1 is expected, None for never. It is sent while there
    is no problem but such as the daemon can bear.
    """

    name = "systemd"

    def __init__(self, sock: NotifySocket, health: Health, watchdog: float | None) -> None:
        self._socket = sock
        self._health = health
        # Half of the time, as sd_watchdog_enabled(3) recommends.
        self._feed_every = None if watchdog is None else watchdog / 2
        self._messages: dict[str, str] = {}
        self._wakes = threading.Condition()
        self._woken = False
        self._phase = health.phase
        self._status = ""
        self._feed_at = self._extend_at = 0.0
        self._stop_by: float | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        if self._socket.is_open:
            self._health.add_listener(self._wake)
            self._thread.start()

    def request_stop(self) -> None:
        """Nothing to do: what there is to say by then is said in `join`."""

    def join(self, timeout: float) -> bool:
        if self._thread.ident is None:
            self._socket.close()
            return True
        with self._wakes:
            self._stop_by = time.monotonic() + min(timeout, LAST_TRIES)
            self._wakes.notify()
        self._thread.join(timeout + AGAIN)
        return not self._thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        return [self._thread] if self._thread.is_alive() else []

    def reloading(self) -> None:
        """Tell that the configuration is being loaded; `reloaded` has to follow."""
        # The same clock as systemd's, in microseconds (clock_gettime(2), CLOCK_MONOTONIC).
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._note("RELOADING", f"1\nMONOTONIC_USEC={microseconds}")
        self._wake()

    def reloaded(self) -> None:
        """Tell that loading the configuration is over."""
        if self._health.is_ready:
            self._note("READY")
            self._wake()

    def _note(self, key: str, value: str = "1") -> None:
        """Have a message sent, after all others; one of its kind that still waits is outdated."""
        with self._wakes:
            self._messages.pop(key, None)
            self._messages[key] = f"{key}={value}"

    def _wake(self) -> None:
        with self._wakes:
            self._woken = True
            self._wakes.notify()

    def _run(self) -> None:
        while True:
            self._observe(time.monotonic())
            delivered = self._deliver()
            with self._wakes:
                if self._stop_by is not None and (delivered or time.monotonic() >= self._stop_by):
                    break
                if not self._woken:
                    self._wakes.wait(self._pause(delivered))
                self._woken = False
        self._socket.close()

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
        if self._feed_every is not None and now >= self._feed_at:
            self._feed_at = now + self._feed_every
            # What hangs while stopping is ended by the deadline.
            if phase != RUNNING or all(problem.bearable for problem in health.problems()):
                self._note("WATCHDOG")

    def _deliver(self) -> bool:
        """Send what is noted down; False when there was no room for all of it."""
        with self._wakes:
            for key, message in list(self._messages.items()):
                if self._socket.send(message) is False:
                    return False
                del self._messages[key]
        return True

    def _pause(self, delivered: bool) -> float | None:
        now = time.monotonic()
        waits = [] if delivered else [AGAIN]
        if self._feed_every is not None:
            waits.append(self._feed_at - now)
        if self._phase in (DRAINING, STOPPING):
            waits.append(self._extend_at - now)
        return max(0.0, min(waits)) if waits else None
