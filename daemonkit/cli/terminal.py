"""Text on a terminal: harmless, and as wide as there is room."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Sequence
from typing import TextIO


def printable(text: str, keep: str = "") -> str:
    """Escape, as JSON does, what isn't printable and might control the terminal.

    keep: characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def width_of(text: str) -> int:
    """The number of columns that a text takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1


def truncated(text: str, width: int) -> str:
    """A text, or its beginning and `...`, in at most `width` columns."""
    if width_of(text) <= width:
        return text
    end, left = 0, width - 3
    while (left := left - _columns(text[end])) >= 0:
        end += 1
    return text[:end] + "..."


def padded(text: str, width: int) -> str:
    """A text with spaces behind it, `width` columns in all."""
    return text + " " * (width - width_of(text))


def aligned(rows: Sequence[Sequence[str]], width: int, widest: int) -> list[str]:
    """Rows of cells as lines in at most `width` columns; widest: of all but the last cells."""
    widths = [min(widest, max(width_of(row[n]) for row in rows)) for n in range(len(rows[0]) - 1)]
    return [
        truncated(
            "".join(padded(truncated(c, w), w) + "  " for c, w in zip(row, widths))  # noqa: B905
            + row[-1],
            width,
        ).rstrip()
        for row in rows
    ]


def encodable(text: str, encoding: str) -> str:
    """The text with characters that the encoding doesn't have escaped."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def discard(stream: TextIO) -> None:
    """Write nothing any more to a stream that can't be written: the interpreter would report that
    at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Style:
    """Colours, on a terminal that shows them and unless NO_COLOR is set (no-color.org)."""

    def __init__(self, is_coloured: bool) -> None:
        self._is_coloured = is_coloured

    @classmethod
    def of(cls, stream: TextIO) -> Style:
        """The style for what is written to a stream."""
        is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return cls(stream.isatty() and not is_plain)

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def faint(self, text: str) -> str:
        return self._paint("2", text)

    def bad(self, text: str) -> str:
        return self._paint("1;31", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def odd(self, text: str) -> str:
        return self._paint("33", text)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_coloured and text else text
