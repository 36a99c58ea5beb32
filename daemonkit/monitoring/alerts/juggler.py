"""The alert outbox: events for the monitoring system Juggler, sent by a thread of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from ...system.outgoing import open_session
from ...text import describe, error_text
from ...types import Problem

STATUSES = ("OK", "INFO", "WARN", "CRIT")
OUTBOX_SIZE = 1000
FIRST_RETRY, LAST_RETRY = 1.0, 60.0
"""Seconds between attempts while Juggler can't be reached: doubled each time, up to the last."""


class _TryLater(Exception):
    """The event may be taken by a later attempt."""


class Outbox:
    """A bounded queue of alerts and the thread that posts them, one a request and in order.

    source: named in each request; url: Juggler's address; timeout: seconds to connect, and to
    answer; redact: applied to the descriptions. While Juggler is away the oldest alert is tried
    again; when the outbox is full the oldest one is dropped, for the newest tell how things are.
    """

    name = "juggler"

    def __init__(
        self,
        source: str,
        url: str,
        timeout: float,
        logger: logging.Logger,
        redact: Callable[[str], str] = str,
        retry: tuple[float, float] = (FIRST_RETRY, LAST_RETRY),
    ) -> None:
        self._source = source
        self._url = url
        self._timeout = timeout
        self._logger = logger
        self._redact = redact
        self._first_retry, self._last_retry = retry
        self._waiting: deque[dict[str, Any]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._closed = False
        self._away = False
        self._halted = False
        self._last_try = False
        self.counts = {"sent": 0, "refused": 0, "dropped": 0}

    def send(self, host: str, service: str, status: str, description: str) -> None:
        """Queue an alert and return at once; raises ValueError for an unknown status and
        TypeError for what isn't a string."""
        if status not in STATUSES:
            raise ValueError(
                f"a Juggler status is one of {', '.join(STATUSES)}, not {describe(status)}"
            )
        texts = {"host": host, "service": service, "description": description}
        for field, text in texts.items():
            if not isinstance(text, str):
                raise TypeError(f"the {field} of an alert must be a string, not {describe(text)}")
        event = {field: self._redact(text) for field, text in texts.items()}
        with self._changed:
            if self._closed:
                self._logger.warning("Alert %s dropped: the daemon has stopped", event)
                return
            if len(self._waiting) >= OUTBOX_SIZE:
                self._drop_oldest()
            self._waiting.append({**event, "status": status, "instance": "", "tags": []})
            if not self._stopping:
                self._ensure_thread()
            self._changed.notify_all()

    def _ensure_thread(self) -> None:
        if self._thread is not None:
            return
        try:
            thread = threading.Thread(target=self._run, name=self.name, daemon=True)
            thread.start()
        # At the limit of threads, or out of memory.
        except (RuntimeError, MemoryError) as error:
            self._halt(error)
        else:
            self._thread = thread

    def _halt(self, error: BaseException) -> None:
        """Log, once, that nothing is sent until the next alert has the thread started again."""
        if not self._halted:
            # Before the log, which may send an alert itself.
            self._halted = True
            self._logger.error(
                "Alerts can't be sent, the next one tries again: %s", error_text(error)
            )

    def _drop_oldest(self) -> None:
        dropped = self._waiting.popleft()
        self.counts["dropped"] += 1
        if self.counts["dropped"] == 1:
            self._logger.error(
                "More than %d alerts wait for Juggler: dropping the oldest, first %s",
                OUTBOX_SIZE,
                dropped,
            )

    def start(self) -> None:
        """Nothing to do: the thread starts with the first alert."""

    def request_stop(self) -> None:
        """Send what is waiting, then stop."""
        with self._changed:
            self._stopping = True
            if self._waiting and not self._closed:
                self._ensure_thread()
            self._changed.notify_all()

    def join(self, timeout: float) -> bool:
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
        with self._changed:
            self._closed = True
            left, alive = len(self._waiting), thread is not None and thread.is_alive()
        if left:
            self._logger.error("%d alerts were not delivered to Juggler at %s", left, self._url)
        return not alive

    def running_threads(self) -> list[threading.Thread]:
        thread = self._thread
        return [thread] if thread is not None and thread.is_alive() else []

    def problems(self) -> list[Problem]:
        """None: an alert that can't be sent is logged."""
        return []

    def counters(self) -> dict[str, int]:
        """Alerts waiting, sent, refused by Juggler, and dropped for lack of room."""
        return {"waiting": len(self._waiting), **self.counts}

    def _run(self) -> None:
        try:
            self._send_waiting()
        # Out of memory, say, or `requests` can't be imported.
        except BaseException as error:
            self._halt(error)
        finally:
            with self._changed:
                self._thread = None

    def _send_waiting(self) -> None:
        # Imported late, see open_session.
        import requests  # noqa: PLC0415

        with open_session(self._url) as session:
            delay = self._first_retry
            while True:
                with self._changed:
                    while not self._waiting:
                        if self._stopping:
                            return
                        self._changed.wait()
                    event = self._waiting[0]
                try:
                    self._post(session, event, requests.RequestException)
                except _TryLater as error:
                    self._entered_trouble(str(error))
                    if self._gave_up(delay):
                        return
                    delay = min(delay * 2, self._last_retry)
                    continue
                # What it can't foresee must not stop all later alerts.
                except Exception:
                    self.counts["refused"] += 1
                    self._logger.exception("Alert %s could not be sent", event)
                delay = self._first_retry
                with self._changed:
                    if self._waiting and self._waiting[0] is event:
                        self._waiting.popleft()

    def _gave_up(self, delay: float) -> bool:
        """Wait before the next attempt; True when the daemon stops, which an attempt that failed
        must not hold up."""
        until = time.monotonic() + delay
        with self._changed:
            while not self._stopping and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            last_try, self._last_try = self._last_try, self._stopping
            return last_try

    def _post(self, session: Any, event: dict[str, Any], network_error: type[Exception]) -> None:
        body = {"source": self._source, "events": [event]}
        try:
            reply = session.post(self._url, json=body, timeout=self._timeout, allow_redirects=False)
        except network_error as error:
            raise _TryLater(_root_cause(error)) from None
        if reply.status_code >= 500 or reply.status_code in (408, 429):
            raise _TryLater(f"HTTP {reply.status_code}")
        if self._halted:
            self._halted = False
            self._logger.info("Alerts are sent again")
        if self._away:
            self._away = False
            self._logger.info("Juggler at %s is back", self._url)
        refusal = self._refusal(reply)
        if refusal is None:
            self.counts["sent"] += 1
        else:
            self.counts["refused"] += 1
            self._logger.error("Juggler refused the alert %s: %s", event, refusal)

    def _refusal(self, reply: Any) -> str | None:
        """Why Juggler didn't take the event, or None when it did."""
        if reply.status_code != 200:
            return f"HTTP {reply.status_code}: {reply.text[:200]}"
        try:
            (answer,) = reply.json()["events"]
            code = answer["code"]
        except (ValueError, KeyError, TypeError):
            return f"its reply is not understood: {reply.text[:200]}"
        return None if code == 200 else f"{code}: {answer.get('message', '')}"

    def _entered_trouble(self, why: str) -> None:
        if not self._away:
            self._away = True
            self._logger.warning("Juggler at %s is away, will try again: %s", self._url, why)


def _root_cause(error: BaseException) -> str:
    """ "Connection refused", rather than all that is wrapped around it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
