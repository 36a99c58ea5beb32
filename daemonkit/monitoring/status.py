"""The values in `/status`: a field that fails hides no other, and every value becomes JSON."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..callables import refuse_unrun
from ..config.redaction import HIDDEN
from ..config.secrets import Secret
from ..runtime.failures import FailureLog
from ..text import cannot_show, error_text, unique_keys

STATUS_KEYS = frozenset(
    {
        "actions",
        "alerts",
        "config",
        "events",
        "events_queue",
        "http",
        "juggler",
        "levels",
        "master_config",
        "name",
        "paused",
        "phase",
        "pid",
        "problems",
        "reload_failed",
        "rights",
        "slaves",
        "started",
        "udp",
        "uptime",
        "waiting_for",
    }
)
"""Keys of `/status` that are the library's own."""


MAX_DEPTH = 100
"""Levels of nesting; a deeper value is shown as text."""


class Gatherer:
    """Calls status functions; logs once when one begins to fail, and once when it works again,
    unless that happens again and again."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._failures = FailureLog(logger)
        self._failing: dict[str, bool] = {}
        """By their titles, those that fail, and whether that was logged."""

    def call(
        self,
        title: str,
        function: Callable[[], Any],
        fallback: Callable[[], dict[str, Any]] = dict,
        then: str = "; /status shows the error instead",
    ) -> Any:
        """Return the function's value, or `fallback()` with the key `error` if it raises.

        title: names the function in the log; then: what follows, for the log.
        """
        try:
            value = refuse_unrun(function())
        # SystemExit included: /status must answer.
        except BaseException as error:
            with self._lock:
                is_new = title not in self._failing
                self._failing.setdefault(title, False)
            if is_new:
                self._failing[title] = self._failures.log(error, f"{title} failed", then=then)
            return {**fallback(), "error": error_text(error)}
        with self._lock:
            recovered = self._failing.pop(title, False)
        if recovered:
            self._logger.info("%s works again", title)
        return value


def without_contents(events: Mapping[str, Any]) -> dict[str, Any]:
    """The counters of events without what events contain, for those who needn't have a token."""
    shown = dict(events)
    if "dead_letters" in shown:
        kept = ("id", "attempts", "first_failed", "last_failed")
        shown["dead_letters"] = [
            # Of the error only its type: the text may quote the event.
            {**{key: letter[key] for key in kept}, "error": letter["error"].partition(":")[0]}
            for letter in shown["dead_letters"]
        ]
    if "stalled" in shown:
        shown["stalled"] = [
            {key: value for key, value in call.items() if key != "event"}
            for call in shown["stalled"]
        ]
    return shown


def jsonable(value: Any, redact: Callable[[str], str]) -> Any:
    """Copy a value to plain JSON types; dates, sets, NaN and other objects become text.

    redact: applied to every text, including keys.
    """
    return _convert_safely(value, redact, ())


def _convert_safely(value: Any, redact: Callable[[str], str], above: tuple[int, ...]) -> Any:
    try:
        return _convert(value, redact, above)
    # A mapping's methods and `__str__` may be the user's, and may raise anything.
    except BaseException as error:
        return cannot_show(value, error)


def _convert(value: Any, redact: Callable[[str], str], above: tuple[int, ...]) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, str):
        return redact(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping | list | tuple):
        if id(value) in above:
            return "(contains itself)"
        if len(above) < MAX_DEPTH:
            above = (*above, id(value))
            if isinstance(value, Mapping):
                return unique_keys(
                    (str(_convert_safely(key, redact, above)), _convert_safely(item, redact, above))
                    for key, item in list(value.items())
                )
            return [_convert_safely(item, redact, above) for item in list(value)]
    return redact(str(value))


def _integer(value: int) -> Any:
    try:
        # Fails beyond sys.get_int_max_str_digits(), and json.dumps with it.
        str(value)
    except ValueError:
        return f"(a number of {value.bit_length()} bits)"
    return int(value)
