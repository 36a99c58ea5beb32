"""Gathering what `/status` shows: one failing field hides no other, and all of it becomes JSON."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..callables import refuse_unrun
from ..config.secrets import HIDDEN, Secret
from ..text import error_text

MAX_DEPTH = 100
"""Levels of nesting beyond which a value is shown as text."""


class Gatherer:
    """Calls status functions, and tells once when one begins to fail and when it works again."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._failing: set[str] = set()

    def call(
        self,
        what: str,
        function: Callable[[], Any],
        fallback: Callable[[], dict[str, Any]] = dict,
    ) -> Any:
        """What `function` returns, or `fallback()` with an `error` when it raises."""
        try:
            value = refuse_unrun(function())
        # SystemExit in a status field must not take the answer down either.
        except BaseException as error:
            with self._lock:
                news = what not in self._failing
                self._failing.add(what)
            if news:
                self._logger.exception("%s failed; shown in its place in /status", what)
            return {**fallback(), "error": error_text(error)}
        with self._lock:
            recovered = what in self._failing
            self._failing.discard(what)
        if recovered:
            self._logger.info("%s works again", what)
        return value


def jsonable(value: Any, redact: Callable[[str], str]) -> Any:
    """A copy of `value` that JSON can hold: dates, sets, NaN and the like become text.

    redact: applied to every text, keys included.
    """
    return _jsonable(value, redact, ())


def _jsonable(value: Any, redact: Callable[[str], str], above: tuple[int, ...]) -> Any:
    try:
        return _convert(value, redact, above)
    # A mapping's access and a `__str__` are the user's, and may raise whatever they like.
    except BaseException as error:
        return f"({type(value).__name__} that can't be shown: {type(error).__name__})"


def _convert(value: Any, redact: Callable[[str], str], above: tuple[int, ...]) -> Any:
    if isinstance(value, Secret):
        return HIDDEN
    if isinstance(value, str):
        return redact(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping | list | tuple):
        if id(value) in above:
            return "(contains itself)"
        if len(above) < MAX_DEPTH:
            above = (*above, id(value))
            if isinstance(value, Mapping):
                return {
                    str(_jsonable(key, redact, above)): _jsonable(item, redact, above)
                    for key, item in list(value.items())
                }
            return [_jsonable(item, redact, above) for item in list(value)]
    return redact(str(value))


def _whole(value: int) -> Any:
    try:
        str(value)
    except ValueError:
        return f"(a number of {value.bit_length()} bits)"
    return int(value)
