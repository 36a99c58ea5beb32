"""Reads NDJSON from a file, in lists that fit into a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from ...exceptions import InvalidEvent
from ..codec import BOM, decode
from .rows import STRIDE

LONGEST_LINE = 64 * 1024 * 1024
BYTES_AT_ONCE = 1024 * 1024


def read_lines(file: BinaryIO) -> Iterator[tuple[list[bytes], int]]:
    """Lists of lines with an event each, and the number of bytes read so far.

    Raises InvalidEvent, with the number of the invalid line, after yielding those before it.
    """
    lines: list[bytes] = []
    number = read = size = 0
    # One byte more than allowed, to recognize a longer line.
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
    """The line as it is stored, b"" without an event; raises InvalidEvent."""
    if len(line) > LONGEST_LINE:
        raise InvalidEvent(f"longer than {LONGEST_LINE} bytes")
    # Concatenated files may have a byte order mark on any line.
    text = line.removeprefix(BOM).strip(b" \t\r\n")
    if text:
        decode(text)
    return text
