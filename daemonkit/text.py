"""Text to show, log or store: bounded and encodable."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any

LONGEST_TEXT = 8000
"""The most characters of an error's text, or of its traceback, that are kept or shown."""


def describe(value: Any) -> str:
    """A value's repr, shortened, and its type, for an error message."""
    text = repr(value)
    return f"{text if len(text) <= 100 else text[:100] + '...'} ({type(value).__name__})"


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
    # Redact before cutting: half a secret isn't recognized.
    return redact(f"{name}: {text}" if text else name)[:LONGEST_TEXT]


def traceback_text(error: BaseException, redact: Callable[[str], str]) -> str:
    """An exception's traceback, plain; if it is long, its end, where the error is. Never raises."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # Notes and causes may be the user's classes.
    except BaseException as worse:
        text = f"(formatting the traceback raises {type(worse).__name__})\n"
    return redact(plain(text))[-LONGEST_TEXT:]


def timestamp(moment: datetime | None) -> str | None:
    """A time as `/status` shows it: 2018-02-01 18:41:37.876631."""
    return None if moment is None else moment.isoformat(sep=" ", timespec="microseconds")
