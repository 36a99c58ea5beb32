"""Text that is shown, logged or stored: bounded, and encodable."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

LONGEST_TEXT = 8000
"""Characters of what is kept or shown of an error."""


def describe(value: Any) -> str:
    """A value and its type, for an error message of one line."""
    text = repr(value)
    return f"{text if len(text) <= 100 else text[:100] + '...'} ({type(value).__name__})"


def plain(text: str) -> str:
    """The text as a plain `str` that any file, socket or database takes; what UTF-8 can't encode is
    escaped."""
    # A subclass may have an `encode` of its own.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def error_text(error: BaseException, redact: Callable[[str], str] = str) -> str:
    """An exception's type and message, plain and not too long, whatever its `__str__` does."""
    try:
        text = plain(str(error))
    except BaseException as worse:
        text = f"(its __str__ raises {type(worse).__name__})"
    name = type(error).__name__
    # Only then: half a secret isn't recognized.
    return redact(f"{name}: {text}" if text else name)[:LONGEST_TEXT]


def traceback_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """An exception's traceback, plain; of a long one the end, where the error is."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # Notes and causes are the user's, too.
    except BaseException as worse:
        text = f"(formatting the traceback raises {type(worse).__name__})\n"
    return redact(plain(text))[-LONGEST_TEXT:]


def timestamp(moment: datetime | None) -> str | None:
    """Local time as `/status` shows it: 2018-02-01 18:41:37.876631."""
    return None if moment is None else moment.isoformat(sep=" ", timespec="microseconds")
