"""Bytes to events: JSON exactly as RFC 8259 has it, one exception for all that isn't.

Python's own parser takes more than the RFC (NaN, Infinity, UTF-16, numbers that become
infinite) and gives up with RecursionError rather than at a known depth.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any

from ..exceptions import InvalidEvent
from ..types import Event

MAX_DEPTH = 200
_WHITESPACE = " \t\r\n"
BOM = b"\xef\xbb\xbf"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b'[{]}"'))
# It may lack its end: looking for strings anew behind each quote would take quadratic time.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_NUMBER = r"-?(?:Infinity|(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)|NaN"


def decode(data: bytes) -> Event:
    """The JSON value that `data` holds; raises InvalidEvent that says what is wrong, and where."""
    event = _quick(data)
    return _decode(data.removeprefix(BOM), "the body is empty") if event is _SLOW else event


def decode_each(
    items: Iterable[bytes], otherwise: Callable[[int, bytes], list[Event]]
) -> list[Event]:
    """The JSON values that `items` hold, one each.

    otherwise: called with the number and the bytes of an item that takes more than a quick look, or
    isn't valid; returns its values, or raises.
    """
    events: list[Event] = []
    for number, data in enumerate(items):
        event = _quick(data)
        if event is _SLOW:
            events += otherwise(number, data)
        else:
            events.append(event)
    return events


def decode_lines(data: bytes) -> tuple[list[Event], list[bytes]]:
    """The values of NDJSON, one a line, and their lines, empty ones left out; raises InvalidEvent
    with the line."""

    def otherwise(number: int, line: bytes) -> list[Event]:
        line = line.rstrip(b" \t\r")
        try:
            return [_decode(line, "")] if line else []
        except InvalidEvent as error:
            raise InvalidEvent(f"line {number + 1}: {error}") from None

    lines = data.removeprefix(BOM).split(b"\n")
    if not lines[-1]:
        # As a rule the last line has an end, too.
        lines.pop()
    events = decode_each(lines, otherwise)
    if not events:
        raise InvalidEvent("the body is empty")
    if len(events) < len(lines):
        lines = [line for line in lines if line.rstrip(b" \t\r")]
    return events, lines


def normalize(value: Any) -> tuple[Event, bytes]:
    """A copy of a Python value in the form it would have come in as JSON, and that JSON; raises
    InvalidEvent."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"not a JSON value: {error}") from None
    except RecursionError:
        raise InvalidEvent(_TOO_DEEP) from None
    data = text.encode()
    # A place in this text would tell the caller nothing.
    if _depth(data) > MAX_DEPTH:
        raise InvalidEvent(_TOO_DEEP)
    return decode(data), data


def beginning(event: Event, limit: int = 200) -> str:
    """The first characters of an event as JSON, for a log line; never raises.

    A handler may have put into its event what JSON can't hold.
    """
    try:
        text = json.dumps(event, ensure_ascii=False, default=repr)
    except Exception as error:
        return f"(an event that can't be shown: {type(error).__name__})"
    return text if len(text) <= limit else text[:limit] + "..."


class _Refused(Exception):
    """A literal that the parser takes and RFC 8259 doesn't."""


def _refuse_constant(literal: str) -> Any:
    raise _Refused(literal, "is not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _Refused(literal, "is too large a number")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_SLOW = object()
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _quick(data: bytes) -> Event:
    """The value of a short text without space before it, as nearly every event is; else _SLOW."""
    # What takes no more than MAX_DEPTH bytes isn't nested deeper.
    if len(data) <= MAX_DEPTH:
        try:
            text = data.decode()
            value, end = _decoder.raw_decode(text)
            # `echo` without -n, and CRLF.
            if end == len(text) or not text[end:].strip(_WHITESPACE):
                return value
        except Exception:
            pass
    return _SLOW


def _decode(data: bytes, when_empty: str) -> Event:
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        _refuse_if_too_deep(data.decode(errors="replace"))
    try:
        text = data.decode()
        return _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidEvent(str(error) if text.strip(_WHITESPACE) else when_empty) from None
    except _Refused as error:
        literal, why = error.args
        where = _first_number(text, lambda number: number == literal)
        raise InvalidEvent(f"{_shorten(literal)} {why}: {where}") from None
    except ValueError:
        # int() refuses more digits than it can convert in reasonable time.
        limit = sys.get_int_max_str_digits()
        where = _first_number(text, lambda n: len(n.lstrip("-")) > limit and _is_whole(n))
        raise InvalidEvent(f"a whole number of more than {limit} digits: {where}") from None


def _depth(data: bytes) -> int:
    """How deep brackets outside of strings are nested, at C's speed."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.translate(None, _NOT_BRACKETS).split(b'"')[::2])
    return max(accumulate(memoryview(outside.translate(_STEPS)).cast("b")), default=0)


def _shorten(literal: str) -> str:
    return literal if len(literal) <= 20 else literal[:20] + "..."


def _first_number(text: str, is_wanted: Callable[[str], bool]) -> str:
    for match in re.finditer(f"{_STRING}|({_NUMBER})", text, re.DOTALL):
        if match[1] and is_wanted(match[1]):
            return _place(text, match.start())
    raise AssertionError("the parser saw it")  # pragma: no cover


def _is_whole(number: str) -> bool:
    return number.lstrip("-").isdigit()


def _refuse_if_too_deep(text: str) -> None:
    """Raise InvalidEvent with the place, if there is one: text that isn't JSON may only seem so."""
    depth = 0
    for match in re.finditer(rf"{_STRING}|[\[{{]|[]}}]", text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise InvalidEvent(f"{_TOO_DEEP}: {_place(text, match.start())}")


def _place(text: str, position: int) -> str:
    at = json.JSONDecodeError("", text, position)
    return f"line {at.lineno} column {at.colno} (char {at.pos})"
