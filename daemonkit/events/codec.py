"""Bytes to events: JSON exactly as RFC 8259 has it, one exception for all that isn't.

Python's own parser takes more than the RFC (NaN, Infinity, UTF-16, numbers that become
infinite) and gives up with RecursionError rather than at a known depth.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

from ..exceptions import InvalidEvent
from ..types import Event

MAX_DEPTH = 200
_BOM = b"\xef\xbb\xbf"
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NOT_BRACKETS = bytes(set(range(256)) - set(b'[{]}"'))
_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'


def decode(data: bytes) -> Event:
    """The JSON value that `data` holds; raises InvalidEvent that says what is wrong, and where."""
    return _decode(data.removeprefix(_BOM), "the body is empty")


def decode_lines(data: bytes) -> list[Event]:
    """The values of NDJSON, one a line, empty lines left out; raises InvalidEvent with the line."""
    events = []
    for number, line in enumerate(data.removeprefix(_BOM).split(b"\n"), 1):
        if line and not line.isspace():
            try:
                events.append(_decode(line, ""))
            except InvalidEvent as error:
                raise InvalidEvent(f"line {number}: {error}") from None
    if not events:
        raise InvalidEvent("the body is empty")
    return events


def normalize(value: Any) -> Event:
    """A copy of a Python value in the form it would have come in as JSON; raises InvalidEvent."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidEvent(f"not a JSON value: {error}") from None
    except RecursionError:
        raise InvalidEvent(_TOO_DEEP) from None
    return decode(text.encode())


def beginning(event: Event, limit: int = 200) -> str:
    """The first characters of an event as JSON, for a log line."""
    text = json.dumps(event, ensure_ascii=False)
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


_parse = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
_TOO_DEEP = f"nested deeper than {MAX_DEPTH} levels"


def _decode(data: bytes, when_empty: str) -> Event:
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise InvalidEvent(_TOO_DEEP)
    try:
        text = data.decode()
        return _parse(text)
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise InvalidEvent(str(error) if text.strip() else when_empty) from None
    except _Refused as error:
        literal, why = error.args
        raise InvalidEvent(f"{_shorten(literal)} {why}: {_locate(text, literal)}") from None
    except ValueError:
        # int() refuses more digits than it can convert in reasonable time.
        raise InvalidEvent("a whole number has too many digits") from None
    except RecursionError:
        raise InvalidEvent(_TOO_DEEP) from None


def _depth(data: bytes) -> int:
    """How deep brackets outside of strings are nested, at C's speed."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b"".join(data.translate(None, _NOT_BRACKETS).split(b'"')[::2])
    return max(accumulate(memoryview(outside.translate(_STEPS)).cast("b")), default=0)


def _shorten(literal: str) -> str:
    return literal if len(literal) <= 20 else literal[:20] + "..."


def _locate(text: str, literal: str) -> str:
    for match in re.finditer(f"{_STRING}|({re.escape(literal)})", text, re.DOTALL):
        if match[1]:
            where = json.JSONDecodeError("", text, match.start())
            return f"line {where.lineno} column {where.colno} (char {where.pos})"
    raise AssertionError("the parser saw it")  # pragma: no cover
