"""The values that a setting accepts: each check converts a value or says what it should be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from ..text import describe

T = TypeVar("T")

SIZES = {"GiB": Decimal(2**30), "MiB": Decimal(2**20), "KiB": Decimal(2**10)}
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
DEFAULT_LEVEL = "DEFAULT"
"""In place of a level that is set for a time: the one that was there before."""
DURATIONS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}


class BadValue(ValueError):
    """Says itself what a value must be, and doesn't show it: it may hold secrets."""


@dataclass(frozen=True, eq=False, repr=False)
class Check(Generic[T]):
    """A kind of value.

    text: describes it ("an int 0..65535"); convert: returns the value, or raises ValueError or
    TypeError; examples: how it may be written, for error messages; is_path: whether a relative
    value counts from the folder where it was given.
    """

    text: str
    convert: Callable[[Any], T]
    examples: str = ""
    is_path: bool = False

    def __call__(self, value: Any) -> T:
        """Convert a value; raises ValueError with a message that follows the setting's name."""
        try:
            return self.convert(value)
        except BadValue:
            raise
        except (TypeError, ValueError, OverflowError):
            examples = f", such as {self.examples}" if self.examples else ""
            raise ValueError(f"must be {self.text}{examples}, not {describe(value)}") from None


def whole(low: int, high: int | None = None) -> Check[int]:
    """A whole number in `low`..`high`."""
    limits = f"{low}..{high}" if high is not None else f">= {low}"
    return Check(f"an int {limits}", lambda value: _whole(value, low, high))


def size(low: int, high: int | None = None) -> Check[int]:
    """A number of bytes in `low`..`high`, plain or with a binary unit."""

    def convert(value: Any) -> int:
        if isinstance(value, str):
            number = _with_unit(value, SIZES)
            if number % 1:
                raise ValueError
            value = int(number)
        return _whole(value, low, high)

    limits = f"{size_text(low)}..{size_text(high)}" if high else f">= {size_text(low)}"
    return Check(f"a size {limits}", convert, "65536, 64KiB, 10MiB or 1GiB")


def size_text(size: int) -> str:
    """A number of bytes with the largest unit that divides it."""
    unit = next((unit for unit, factor in SIZES.items() if size and size % factor == 0), None)
    return f"{size // SIZES[unit]}{unit}" if unit else str(size)


def duration_text(seconds: float) -> str:
    """A number of seconds with the largest unit that divides it, as `duration` takes it."""
    exact = Decimal(repr(seconds))
    for unit, factor in reversed(DURATIONS.items()):
        if seconds and exact % factor == 0:
            return f"{int(exact / factor)}{unit}"
    return f"{seconds:g}s"


def duration(low: float, high: float) -> Check[float]:
    """A number of seconds in `low`..`high`, plain or with a unit."""

    def convert(value: Any) -> float:
        if isinstance(value, str):
            number = _with_unit(value, DURATIONS)
            value = float(number) if number % 1 else int(number)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return value

    text = f"a duration of {low:g}..{high:g} seconds"
    return Check(text, convert, "30, 30s, 5m or 1h" if low >= 1 else "30, 500ms, 30s, 5m or 1h")


def one_of(*names: str, fold: Callable[[str], str]) -> Check[str]:
    """One of `names`, in any case; fold: converts a value to the case of `names`."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or fold(value) not in names:
            raise ValueError
        return fold(value)

    return Check("one of " + ", ".join(names), convert)


def or_none(check: Check[T]) -> Check[T | None]:
    """The same, or null."""
    return Check(
        f"{check.text} or null",
        lambda value: None if value is None else check.convert(value),
        check.examples,
        check.is_path,
    )


def numeric(text: str) -> str | float:
    """A number of seconds that was given as text, or the text."""
    return float(text) if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,6})?", text) else text


def _whole(value: Any, low: int, high: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    if value < low or (high is not None and value > high):
        raise ValueError
    return value


def _with_unit(text: str, units: Mapping[str, Decimal]) -> Decimal:
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([A-Za-z]+)", text)
    if found is None or found[2] not in units:
        raise ValueError
    return Decimal(found[1]) * units[found[2]]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value or "\0" in value:
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return [_text(item) for item in value]


def _url(value: Any) -> str:
    if _is_url(value):
        # Not as a new text: it may be a Secret.
        return _text(value)
    if "@" in repr(value):
        raise BadValue(f"must be {URL.text}; it isn't shown here, since it may have a password")
    raise ValueError


def _is_url(value: Any) -> bool:
    try:
        parts = urlsplit(_text(value))
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Reading the port checks that it is one.
        return is_web and parts.port != 0 and not re.search(r"[\0- ]", value)
    except (TypeError, ValueError):
        return False


def is_address(queue: str) -> bool:
    """Whether a queue is in an engine, and not in a file."""
    return re.match(r"(?:rediss?|redis\+sentinel)://", queue) is not None


def _queue(value: Any) -> str:
    # SQLite's names for databases in memory, and other URLs.
    if re.match(r":memory:|file:|[\w+.-]+://", _text(value)) and not is_address(value):
        if "@" in repr(value):
            raise BadValue(
                f"must be {QUEUE.text}; it isn't shown here, since it may have a password"
            )
        raise ValueError
    return _text(value)


def _confirm(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(value) <= {"replicas", "aof"}:
        raise ValueError
    checks = {"replicas": lambda number: _whole(number, 0, 100), "aof": _boolean}
    return {name: checks[name](given) for name, given in value.items()}


LEVEL_TIME = duration(1, 7 * 86_400)
"""How long a level may be set for."""
TEXT = Check("a string, not empty", _text)
URL = Check("an http or https URL", _url)
TEXTS = Check("a list of strings", _texts)
BOOLEAN = Check("true or false", _boolean)
FILE = Check("a file's path", _text, is_path=True)
QUEUE = Check(
    "a file's path or a redis:// address",
    _queue,
    "events.db (or left out, to keep events in memory)",
    is_path=True,
)
CONFIRM = Check("a mapping with `replicas`, 0..100, and `aof`", _confirm, "{replicas: 1}")
