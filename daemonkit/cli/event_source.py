"""Events as they are given to `daemonkit send`: an argument, a file or a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..events.codec import BOM, decode
from ..exceptions import InvalidEvent

BATCH_BYTES = 1024 * 1024
"""A batch isn't extended beyond this; one event may be larger."""
CHUNK = 1024 * 1024
LONGEST_LINE = 64 * 1024 * 1024


class Lines(NamedTuple):
    """A batch. first, last: numbers of its lines; end: bytes of the source up to the next one."""

    events: list[bytes]
    first: int
    last: int
    end: int

    @property
    def place(self) -> str:
        """The lines, for a message."""
        return (
            f"line {self.first}" if self.first == self.last else f"lines {self.first}-{self.last}"
        )


def is_event(text: str) -> bool:
    """Whether an argument is an event and not the name of a file; raises InvalidEvent.

    What is valid JSON is an event. Otherwise it is one that is wrong, unless there is such a file.
    """
    try:
        decode(text.encode())
    except UnicodeEncodeError:
        return False
    except InvalidEvent:
        if os.path.exists(text) or not text.lstrip().startswith(("{", "[", '"')):
            return False
        raise
    return True


def read_batches(source: BinaryIO, most: int) -> Iterator[Lines]:
    """Read NDJSON in batches of at most `most` events; one that comes slowly isn't waited for.

    Raises InvalidEvent with the number of the line, after yielding what is before it.
    """
    number = begin = 0
    rest = b""
    while True:
        chunk = source.read1(CHUNK)  # type: ignore[attr-defined]
        *lines, rest = (rest + chunk).split(b"\n")
        if not chunk:
            # It ends without a line feed.
            yield from _batches([rest], number, begin - 1, most)
            return
        yield from _batches(lines, number, begin, most)
        number += len(lines)
        begin += sum(len(line) + 1 for line in lines)
        if len(rest) > LONGEST_LINE:
            raise InvalidEvent(f"line {number + 1}: longer than {LONGEST_LINE} bytes")


def _batches(lines: list[bytes], before: int, begin: int, most: int) -> Iterator[Lines]:
    """before, begin: lines and bytes before these ones."""
    events: list[bytes] = []
    first = size = 0
    end = begin
    for number, line in enumerate(lines, before + 1):
        start, end = end, end + len(line) + 1
        # Concatenated files may have a byte order mark on any line.
        text = line.removeprefix(BOM).strip(b" \t\r")
        if not text:
            continue
        try:
            decode(text)
        except InvalidEvent as error:
            if events:
                yield Lines(events, first, number - 1, start)
            raise InvalidEvent(f"line {number}: {error}") from None
        if len(events) == most or (events and size + len(text) > BATCH_BYTES):
            yield Lines(events, first, number - 1, start)
            events, size = [], 0
        if not events:
            first = number
        events.append(text)
        size += len(text) + 1
    if events:
        yield Lines(events, first, before + len(lines), end)
