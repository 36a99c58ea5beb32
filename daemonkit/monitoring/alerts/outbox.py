"""The alert outbox: a bounded queue, and the thread that delivers it to one monitoring system."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Hashable, Mapping

from ...runtime.failures import FailureLog
from ...text import error_text, shorten
from ...types import Problem
from .alert import Alert
from .backend import Backend, Post, TryLater

OUTBOX_SIZE = 1000
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds between attempts while the backend is unavailable: doubled up to the longest."""


class Outbox:
    """A bounded queue of alerts and the thread that posts them in order.

    redact: applied to an alert's texts; retry: seconds before the first retry, and at most before
    any later one; newest_only: a waiting alert is replaced by a newer one of the same service. An
    alert is retried while the backend is unavailable. When the outbox is full, the oldest alert is
    dropped, because the newest ones describe the current state.
    """

    def __init__(
        self,
        backend: Backend,
        logger: logging.Logger,
        redact: Callable[[str], str] = str,
        retry: tuple[float, float] = (FIRST_RETRY, LONGEST_RETRY),
        *,
        newest_only: bool = False,
    ) -> None:
        self.name = backend.name
        self._backend = backend
        self._logger = logger
        self._redact = redact
        self._first_retry, self._longest_retry = retry
        self._newest_only = newest_only
        self.failures = FailureLog(logger, redact=redact)
        self._numbers = itertools.count()
        self._waiting: dict[Hashable, Alert] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False
        self._unavailable = False
        self._halted = False
        self._refused_last = False
        self._counts = {"sent": 0, "refused": 0, "dropped": 0}

    def put(self, alert: Alert) -> None:
        """Queue an alert; never blocks on the network."""
        alert = alert._replace(
            host=self._redact(alert.host),
            service=self._redact(alert.service),
            description=self._redact(alert.description),
        )
        with self._changed:
            if self._closed:
                self._logger.warning("Dropped %s: the daemon has stopped", alert)
                return
            key = alert.service if self._newest_only else next(self._numbers)
            if (replaced := self._waiting.get(key)) is not None:
                alert = alert._replace(previous=replaced.previous)
            elif len(self._waiting) >= OUTBOX_SIZE:
                self._drop_oldest()
            self._waiting[key] = alert
            if not self._stopping:
                self._ensure_thread()
            self._changed.notify_all()

    def _ensure_thread(self) -> None:
        if self._thread is not None:
            return
        try:
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            thread.start()
        # At the thread limit, or out of memory.
        except (RuntimeError, MemoryError) as error:
            self._halt(error)
        else:
            self._thread = thread

    def _halt(self, error: BaseException) -> None:
        """Log, once, that nothing is sent until the next alert restarts the thread."""
        if not self._halted:
            # Set before logging: a log handler may send an alert itself.
            self._halted = True
            self._logger.error("Cannot send alerts; the next alert retries: %s", error_text(error))

    def _drop_oldest(self) -> None:
        dropped = self._waiting.pop(next(iter(self._waiting)))
        self._counts["dropped"] += 1
        if self._counts["dropped"] == 1:
            self._logger.error(
                "More than %d alerts are waiting for %s; dropping the oldest, first %s",
                OUTBOX_SIZE,
                self._backend.address,
                dropped,
            )

    def start(self) -> None:
        """Do nothing: the first alert starts the thread."""

    def request_stop(self) -> None:
        """Send the waiting alerts, then stop."""
        with self._changed:
            self._stopping = True
            if self._waiting and not self._closed:
                self._ensure_thread()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; log how many alerts are left."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            self._closed = True
            left = len(self._waiting)
        if left:
            self._logger.error("%d alerts were not delivered to %s", left, self._backend.address)
        return thread is None or not thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        thread = self._thread
        return [thread] if thread is not None and thread.is_alive() else []

    def problems(self) -> list[Problem]:
        """None: an alert that cannot be sent is logged."""
        return []

    def counters(self) -> dict[str, int]:
        """Alerts waiting, sent, refused by the backend, and dropped for lack of room."""
        return {"waiting": len(self._waiting), **self._counts}

    def _run(self) -> None:
        try:
            with self._backend.connect() as post:
                self._send_waiting(post)
        # For example out of memory, or a module that cannot be imported.
        except BaseException as error:
            self._halt(error)
        finally:
            with self._changed:
                self._thread = None

    def _send_waiting(self, post: Post) -> None:
        delay, is_final = self._first_retry, False
        while batch := self._next():
            try:
                self._send(post, list(batch.values()))
            except TryLater as error:
                self._report_unavailable(str(error))
                # One retry after the stop request, without delay.
                if is_final:
                    return
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, delay)
                    is_final = self._stopping
                delay = min(delay * 2, self._longest_retry)
            else:
                delay = self._first_retry
                self._remove(batch)

    def _next(self) -> dict[Hashable, Alert]:
        """Wait for alerts; empty when a stop is requested and none are left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            return dict(itertools.islice(self._waiting.items(), self._backend.batch))

    def _remove(self, sent: Mapping[Hashable, Alert]) -> None:
        with self._changed:
            for key, alert in sent.items():
                # It may have been dropped or replaced in the meantime.
                waiting = self._waiting.get(key)
                if waiting is alert:
                    del self._waiting[key]
                elif waiting is not None:
                    self._waiting[key] = waiting._replace(previous=alert.status)

    def _send(self, post: Post, alerts: list[Alert]) -> None:
        try:
            refusals = post(alerts)
        except TryLater:
            raise
        # An alert that breaks the backend must not block all later ones.
        except Exception:
            self._counts["refused"] += len(alerts)
            shown = ", ".join(map(str, alerts))
            self.failures.log_raised("Could not send alerts", f": {shorten(shown)}")
            return
        self._report_available()
        for alert, refusal in zip(alerts, refusals, strict=True):
            self._count(alert, refusal)

    def _count(self, alert: Alert, refusal: str | None) -> None:
        if refusal is None:
            self._counts["sent"] += 1
        else:
            self._counts["refused"] += 1
            # One that is repeated every minute need not be logged as often.
            if not (self._refused_last and alert.is_repeated):
                self._logger.error("%s refused %s: %s", self._backend.address, alert, refusal)
        self._refused_last = refusal is not None

    def _report_unavailable(self, why: str) -> None:
        if not self._unavailable:
            self._unavailable = True
            self._logger.warning("%s is unavailable, retrying: %s", self._backend.address, why)

    def _report_available(self) -> None:
        if self._halted:
            self._halted = False
            self._logger.info("Sending alerts again")
        if self._unavailable:
            self._unavailable = False
            self._logger.info("%s is available again", self._backend.address)
