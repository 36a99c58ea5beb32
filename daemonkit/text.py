"""Text to show, log or store: bounded and encodable."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from datetime import datetime
from types import TracebackType
from typing import Any

LONGEST_TEXT = 8000
"""The most characters of an error's text, or of its traceback, that are kept or shown."""


CUT = "..."
"""Marks where a text was cut; beside it, the redaction recognizes a part of a secret."""


def shorten(text: str, limit: int = LONGEST_TEXT) -> str:
    """The text, or its first `limit` characters and a mark."""
    return text if len(text) <= limit else text[:limit] + CUT


def describe(value: Any) -> str:
    """A value's repr, shortened, and its type, for an error message."""
    return f"{shorten(repr(value), 100)} ({type(value).__name__})"


def shown(value: object) -> str:
    """A value's `str`, or a placeholder if that raises; never raises."""
    try:
        return str(value)
    # It may be the user's, and may raise anything.
    except BaseException as error:
        return cannot_show(value, error)


def cannot_show(value: object, error: BaseException) -> str:
    """The placeholder for a value whose `str` or `repr` raises `error`."""
    return f"({type(value).__name__} that can't be shown: {type(error).__name__})"


def plain(text: str) -> str:
    """The text as a plain `str` that UTF-8 can encode; lone surrogates are escaped."""
    # A subclass may override `encode`.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can encode a text; arguments may have lone surrogates (PEP 383)."""
    try:
        str.encode(text, "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def error_text(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """An exception's type and message, plain and at most LONGEST_TEXT characters; never raises."""
    try:
        text = plain(str(error))
    except BaseException as worse:
        text = f"(its __str__ raises {type(worse).__name__})"
    name = type(error).__name__
    return _beginning(f"{name}: {text}" if text else name, redact, LONGEST_TEXT)


def traceback_text(
    error: BaseException, redact: Callable[[str], str], trace: TracebackType | None = None
) -> str:
    """An exception's traceback, plain and at most LONGEST_TEXT characters; never raises.

    trace: in place of the exception's own. A long message is cut at its end, and what is above it
    at the beginning: the error is where they meet.
    """
    try:
        kind, trace = type(error), trace or error.__traceback__
        text = plain("".join(traceback.format_exception(kind, error, trace)))
        last = plain("".join(traceback.format_exception_only(kind, error)))
    # Notes and causes may be the user's classes.
    except BaseException as worse:
        return redact(f"(formatting the traceback raises {type(worse).__name__})\n")
    if len(text) <= LONGEST_TEXT:
        return _ending(text, redact, LONGEST_TEXT)
    # A group's message is followed by the exceptions in it.
    if not text.endswith(last):
        last = ""
    above = text.removesuffix(last)
    last = _beginning(last, redact, LONGEST_TEXT // 2)
    return _ending(above, redact, LONGEST_TEXT - len(last)) + last


def _beginning(text: str, redact: Callable[[str], str], limit: int) -> str:
    """The redacted text, or its first characters and a mark: at most `limit` in all."""
    # Redacted before it is cut to size, and before that not cut without a mark: half a secret is
    # recognized only there.
    part = redact(shorten(text, 3 * LONGEST_TEXT))
    if len(text) <= 3 * LONGEST_TEXT and len(part) <= limit:
        return part
    mark = f"{CUT} (cut: {len(text)} characters)"
    return part.removesuffix(CUT)[: limit - len(mark)] + mark


def _ending(text: str, redact: Callable[[str], str], limit: int) -> str:
    """The redacted text, or a mark and its last characters: at most `limit` in all."""
    is_long = len(text) > 3 * LONGEST_TEXT
    part = redact(CUT * is_long + text[-3 * LONGEST_TEXT :])
    if not is_long and len(part) <= limit:
        return part
    mark = f"(cut: {len(text)} characters) {CUT}"
    return mark + part.removeprefix(CUT)[len(mark) - limit :]


def unique_keys(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of the items; a key that is in it already gets a number, so that nothing is lost."""
    found: dict[str, Any] = {}
    for key, value in items:
        unique, number = key, 1
        while unique in found:
            number += 1
            unique = f"{key} ({number})"
        found[unique] = value
    return found


def timestamp(moment: datetime | None) -> str | None:
    """A time as `/status` shows it: 2018-02-01 18:41:37.876631."""
    return None if moment is None else moment.isoformat(sep=" ", timespec="microseconds")
