"""Events of a durable queue as text for a terminal."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from ..events.codec import beginning, decode
from ..events.durable.editor import Stored
from ..exceptions import InvalidEvent

NARROWEST_EVENT = 20
WIDEST_ERROR = 40
WITHOUT_TERMINAL = (120, 24)
"""Columns and lines when the output isn't a terminal."""


def table(events: Sequence[Stored]) -> Iterable[str]:
    """Format a table with a heading, as wide as the terminal."""
    rows = [("ID", "STATE", "RECEIVED", "ATTEMPTS", "ERROR", "EVENT")]
    columns = shutil.get_terminal_size(WITHOUT_TERMINAL).columns
    rows += [
        (
            str(event.id),
            event.state,
            _local_time(event.received),
            str(event.attempts),
            printable(event.error),
            _event_text(event, columns),
        )
        for event in events
    ]
    if not any(event.error for event in events):
        rows = [(*row[:4], "", row[5]) for row in rows]
    widths = [max(_width(row[n]) for row in rows) for n in range(5)]
    widths[4] = min(widths[4], WIDEST_ERROR)
    rest = max(NARROWEST_EVENT, columns - sum(width + 2 for width in widths if width))
    for row in rows:
        cells = [_padded(_truncated(cell, width), width) for cell, width in zip(row, widths)]  # noqa: B905
        yield "  ".join([*filter(None, cells), _truncated(row[5], rest)]).rstrip()


def details(event: Stored) -> Iterable[str]:
    """Format everything that is known about an event."""
    facts = {
        "ID": str(event.id),
        "State": event.state,
        "Received": _local_time(event.received),
        "Source": event.source,
        "Peer": event.origin.peer,
        "Sender": event.origin.sender,
    }
    if event.state != "waiting":
        facts |= {
            "Attempts": str(event.attempts),
            "First failure": _local_time(event.first_failed),
            "Last failure": _local_time(event.last_failed),
            "Next attempt": "none" if event.due is None else _local_time(event.due),
            "Error": event.error,
        }
    for name, text in facts.items():
        if text is not None:
            yield f"{name + ':':<15}{printable(text)}"
    if event.traceback:
        yield ""
        yield printable(event.traceback.rstrip("\n"), keep="\n")
    yield ""
    try:
        value = decode(event.line)
    except InvalidEvent as error:
        yield f"The event is damaged: {printable(str(error))}"
        yield printable(event.line.decode(errors="replace"))
    else:
        yield printable(json.dumps(value, indent=2, ensure_ascii=False), keep="\n")


def printable(text: str, keep: str = "") -> str:
    """Escape, as JSON does, what isn't printable and might control the terminal.

    keep: characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else json.dumps(c)[1:-1] for c in text)


def _local_time(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def _event_text(event: Stored, length: int) -> str:
    try:
        text = beginning(decode(event.line), length)
    except InvalidEvent:
        text = event.line[:length].decode(errors="replace")
    return printable(text)


def _width(text: str) -> int:
    """The number of columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1


def _truncated(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    end, left = 0, width - 3
    while (left := left - _width_of(text[end])) >= 0:
        end += 1
    return text[:end] + "..."


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
