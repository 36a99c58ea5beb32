"""Bytes to events: strict JSON (RFC 8259); InvalidEvent for everything else.

Python's parser accepts more than the RFC (NaN, Infinity, numbers that overflow to infinity), and
raises RecursionError for deep nesting instead of enforcing a fixed limit.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ..exceptions import EventTooLarge, InvalidEvent
from ..text import shorten
from ..types import Event

MAX_DEPTH = 200
MAX_VALUES = 200_000
"""Values in an event from outside. Decoding them keeps the interpreter from all other threads for a
tenth of a second."""
_WHITESPACE = " \t\r\n"
BOM = b"\xef\xbb\xbf"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b'[{]}"'))
_STEPS_AT_ONCE = 65536
# The closing quote is optional: retrying at each later quote would take quadratic time.
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
_NUMBER = r"-?(?:Infinity|(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?)|NaN"


class Decoded(NamedTuple):
    """Events, and the JSON text of each as received."""

    events: list[Event]
    lines: list[bytes]


def decode(data: bytes, limit: int | None = None) -> Event:
    """Decode one JSON value; raises InvalidEvent with the reason and the position.

    limit: the most bytes of an event from outside, which may not have too many values either
    (EventTooLarge); None for one that was accepted before.
    """
    if limit is not None and len(data) > limit:
        raise EventTooLarge(f"an event of {len(data)} bytes is over max_event_size ({limit} bytes)")
    event = _decode_short(data)
    if event is not _UNDECODED:
        return event
    if limit is not None:
        _refuse_if_too_many(data)
    return _decode(data.removeprefix(BOM), "the body is empty")


def decode_one(data: bytes, limit: int | None = None) -> Decoded:
    """Decode one JSON value and keep its text; see `decode`."""
    return Decoded([decode(data, limit)], [data])


def decode_each(
    items: Sequence[bytes],
    fallback: Callable[[int, bytes], list[Event]],
    limit: int | None = None,
) -> list[Event]:
    """Decode one JSON value per item.

    fallback: called with the number and the bytes of an item that the fast path does not decode, or
    that is over the limit; returns a list of its value, an empty list to leave it out, or raises.
    """
    events: list[Event] = []
    all_fit = limit is None or max(map(len, items), default=0) <= limit
    for number, data in enumerate(items):
        event = _decode_short(data) if all_fit or len(data) <= (limit or 0) else _UNDECODED
        if event is _UNDECODED:
            events += fallback(number, data)
        else:
            events.append(event)
    return events


def decode_lines(data: bytes, limit: int | None = None) -> Decoded:
    """Decode NDJSON, one value per line; empty lines are left out. Raises InvalidEvent with the
    line number; see `decode`."""

    def fallback(number: int, line: bytes) -> list[Event]:
        line = line.rstrip(b" \t\r")
        try:
            return [decode(line, limit)] if line else []
        except InvalidEvent as error:
            raise type(error)(f"line {number + 1}: {error}") from None

    lines = data.removeprefix(BOM).split(b"\n")
    if not lines[-1]:
        # The last line is usually terminated, too.
        lines.pop()
    events = decode_each(lines, fallback, limit)
    if not events:
        raise InvalidEvent("the body is empty")
    if len(events) < len(lines):
        lines = [line for line in lines if line.rstrip(b" \t\r")]
    return Decoded(events, lines)


def count_lines(data: bytes) -> int:
    """How many lines of NDJSON are not empty."""
    data = data.translate(None, b" \t\r")
    while b"\n\n" in data:
        data = data.replace(b"\n\n", b"\n")
    data = data.strip(b"\n")
    return data.count(b"\n") + bool(data)


def normalize(value: Any, limit: int | None = None) -> Decoded:
    """Turn a Python value into an event as if it had been received as JSON; see `decode`."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"not a JSON value: {error}") from None
    except RecursionError:
        raise InvalidEvent(_TOO_DEEP) from None
    data = text.encode()
    # Not left to `decode`: a position in this text means nothing to the caller.
    if _depth(data) > MAX_DEPTH:
        raise InvalidEvent(_TOO_DEEP)
    return decode_one(data, limit)


def beginning(event: Event, limit: int = 200) -> str:
    """The first characters of an event as JSON, for a log line; never raises.

    A handler may have added values to its event that JSON can't represent.
    """
    try:
        text = json.dumps(event, ensure_ascii=False, default=repr)
    except Exception as error:
        return f"(an event that can't be shown: {type(error).__name__})"
    return shorten(text, limit)


class _InvalidLiteral(Exception):
    """A literal that Python's parser accepts and RFC 8259 doesn't."""


def _refuse_constant(literal: str) -> Any:
    raise _InvalidLiteral(literal, "is not JSON")


def _finite(literal: str) -> float:
    number = float(literal)
    if math.isinf(number):
        raise _InvalidLiteral(literal, "is too large a number")
    return number


_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_UNDECODED = object()
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _decode_short(data: bytes) -> Event:
    """The fast path, for a valid and short text without leading space; otherwise _UNDECODED."""
    # MAX_DEPTH bytes can't be nested deeper than MAX_DEPTH levels.
    if len(data) <= MAX_DEPTH:
        try:
            text = data.decode()
            value, end = _decoder.raw_decode(text)
            # A trailing newline, as from `echo`, or CRLF.
            if end == len(text) or not text[end:].strip(_WHITESPACE):
                return value
        except Exception:
            pass
    return _UNDECODED


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
    except _InvalidLiteral as error:
        literal, why = error.args
        where = _first_number(text, lambda number: number == literal)
        raise InvalidEvent(f"{_shorten(literal)} {why}: {where}") from None
    except ValueError:
        # int() limits the number of digits, since its time is quadratic.
        limit = sys.get_int_max_str_digits()
        where = _first_number(text, lambda n: len(n.lstrip("-")) > limit and _is_whole(n))
        raise InvalidEvent(f"a whole number of more than {limit} digits: {where}") from None


def _refuse_if_too_many(data: bytes) -> None:
    """Raise EventTooLarge for more than MAX_VALUES elements and members, at all levels."""
    # An upper bound first: each value follows a comma or is the first in its container.
    if data.count(b",") + data.count(b"[") + data.count(b"{") <= MAX_VALUES:
        return
    outside = b'"'.join(_unescaped(data).translate(None, b" \t\r\n").split(b'"')[::2])
    containers = outside.count(b"[") + outside.count(b"{")
    empty = outside.count(b"[]") + outside.count(b"{}")
    if outside.count(b",") + containers - empty > MAX_VALUES:
        raise EventTooLarge(f"an event of more than {MAX_VALUES} values")


def _unescaped(data: bytes) -> bytes:
    """The text without escaped quotes, so that the others begin and end strings."""
    return data.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in data else data


def _depth(data: bytes) -> int:
    """The nesting depth of brackets outside strings, counted in C."""
    outside = b"".join(_unescaped(data).translate(None, _NOT_BRACKETS).split(b'"')[::2])
    steps = memoryview(outside.translate(_STEPS)).cast("b")
    depth = deepest = 0
    # In parts, between which other threads may run.
    for start in range(0, len(steps), _STEPS_AT_ONCE):
        depths = list(accumulate(steps[start : start + _STEPS_AT_ONCE], initial=depth))
        depth, deepest = depths[-1], max(deepest, max(depths))
        if deepest > MAX_DEPTH:
            break
    return deepest


def _shorten(literal: str) -> str:
    return literal if len(literal) <= 20 else literal[:20] + "..."


def _first_number(text: str, is_wanted: Callable[[str], bool]) -> str:
    for match in re.finditer(f"{_STRING}|({_NUMBER})", text, re.DOTALL):
        if match[1] and is_wanted(match[1]):
            return _position(text, match.start())
    raise AssertionError("the parser found one")  # pragma: no cover


def _is_whole(number: str) -> bool:
    return number.lstrip("-").isdigit()


def _refuse_if_too_deep(text: str) -> None:
    """Raise InvalidEvent with the position if the text is nested too deep: `_depth` can be wrong
    about text that isn't JSON."""
    depth = 0
    for match in re.finditer(rf"{_STRING}|[\[{{]|[]}}]", text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            raise InvalidEvent(f"{_TOO_DEEP}: {_position(text, match.start())}")


def _position(text: str, position: int) -> str:
    at = json.JSONDecodeError("", text, position)
    return f"line {at.lineno} column {at.colno} (char {at.pos})"
