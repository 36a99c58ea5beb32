"""NDJSON read from a file, some events at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ...exceptions import InvalidEvent
from ..codec import BOM, decode
from .store import STRIDE

LONGEST_LINE = 64 * 1024 * 1024
BYTES_AT_ONCE = 1024 * 1024


def read_lines(file: BinaryIO) -> Iterator[tuple[list[bytes], int]]:
    """The lines with an event, in lists that fit into a batch, and how many bytes were read so far.

    Raises InvalidEvent that says which line is wrong, and why, after giving those before it.
    """
    lines: list[bytes] = []
    number = read = size = 0
    # One more than a line may have, so that a longer one shows.
    while line := file.readline(LONGEST_LINE + 1):
        number, read = number + 1, read + len(line)
        try:
            if line := _checked(line):
                lines.append(line)
                size += len(line)
        except InvalidEvent as error:
            if lines:
                yield lines, read
            raise InvalidEvent(f"line {number}: {error}") from None
        if len(lines) >= STRIDE or size >= BYTES_AT_ONCE:
            yield lines, read
            lines, size = [], 0
    if lines:
        yield lines, read


def _checked(line: bytes) -> bytes:
    """The line as it is stored, b"" if there is nothing on it; raises InvalidEvent."""
    if len(line) > LONGEST_LINE:
        raise InvalidEvent(f"longer than {LONGEST_LINE} bytes")
    # Files with a mark at their beginning may have been joined.
    text = line.removeprefix(BOM).strip(b" \t\r\n")
    if text:
        decode(text)
    return text
