"""Events of a durable queue as text for a terminal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..events.codec import beginning, decode
from ..exceptions import InvalidEvent
from .terminal import padded, printable, truncated, width_of

if TYPE_CHECKING:
    from ..events.durable.editor import Stored

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
    widths = [max(width_of(row[n]) for row in rows) for n in range(5)]
    widths[4] = min(widths[4], WIDEST_ERROR)
    rest = max(NARROWEST_EVENT, columns - sum(width + 2 for width in widths if width))
    for row in rows:
        cells = [padded(truncated(cell, width), width) for cell, width in zip(row, widths)]  # noqa: B905
        yield "  ".join([*filter(None, cells), truncated(row[5], rest)]).rstrip()


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
    yield from _laid_out(facts, event.traceback)
    try:
        yield _indented(event.line)
    except InvalidEvent as error:
        yield f"The event is damaged: {printable(str(error))}"
        yield printable(event.line.decode(errors="replace"))


def failed_details(event: Mapping[str, Any]) -> Iterable[str]:
    """The same of a failed event as `/control/show` answers it."""
    names = {
        "id": "ID",
        "state": "State",
        "received": "Received",
        "attempts": "Attempts",
        "first_failed": "First failure",
        "last_failed": "Last failure",
        "due": "Next attempt",
        "error": "Error",
    }
    facts = {title: event.get(name) for name, title in names.items()}
    texts = {title: None if fact is None else str(fact) for title, fact in facts.items()}
    yield from _laid_out(texts, str(event.get("traceback") or ""))
    text = str(event.get("event"))
    try:
        yield _indented(text.encode(errors="replace"))
    # Of a large one in memory, only the beginning may be kept.
    except InvalidEvent:
        yield printable(text)


def _laid_out(facts: Mapping[str, str | None], traceback: str) -> Iterable[str]:
    for name, text in facts.items():
        if text is not None:
            yield f"{name + ':':<15}{printable(text)}"
    if traceback:
        yield ""
        yield printable(traceback.rstrip("\n"), keep="\n")
    yield ""


def _indented(line: bytes) -> str:
    return printable(json.dumps(decode(line), indent=2, ensure_ascii=False), keep="\n")


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
