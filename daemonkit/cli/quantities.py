"""Durations, numbers and times as people read them."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from typing import Any, TypeGuard

LARGEST = 1e15
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float) -> str:
    """Seconds in at most two units: `0.4 s`, `12 s`, `3 min 20 s`, `2 d 4 h`."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    for (size, unit), (smaller, below) in pairwise(_UNITS):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def number(value: Any) -> str:
    """A count, with commas between thousands; `-` for what isn't one."""
    return f"{value:,}" if is_number(value) else "-"


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value of an answer is a number that can be shown."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and abs(value) < LARGEST


def moment(value: Any) -> datetime | None:
    """A time of an answer (2018-02-01 18:41:37.876631), None if it isn't one."""
    try:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    except (TypeError, ValueError):
        return None


def to_second(value: Any) -> str:
    """A time of an answer without its fraction, or the value as text."""
    return f"{found:%Y-%m-%d %H:%M:%S}" if (found := moment(value)) else str(value)
