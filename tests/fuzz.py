"""Fuzz what reads bytes from the network, guided by coverage (atheris, libFuzzer).

    python -m tests.fuzz requests|datagrams [OPTION ...]

The options are libFuzzer's, for example -max_total_time=300. It needs `pip install atheris`, and runs
until it is interrupted or finds an input for which a property doesn't hold, which it writes to a file.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import atheris

# The parts under test have to be imported where they are instrumented.
with atheris.instrument_imports(include=["daemonkit"]):
    from waitress.adjustments import Adjustments

    from daemonkit import EventTooLarge, InvalidEvent, Secret
    from daemonkit.config.defaults import Settings
    from daemonkit.events import codec
    from daemonkit.web.access import Access
    from daemonkit.web.fast_lane import MAX_BODY, MAX_HEAD, Head, read_head
    from daemonkit.web.request import Parser
    from daemonkit.web.responses import NDJSON

from .web.corpus import BATCHES, BODIES, CORPUS, request
from .web.malformed import ANSWERS

MAX_INPUT = 1100
MAX_SINGLE = 256
"""The most bytes that are also received one by one, which takes its time."""
LIMIT = 1000
"""The most bytes of a body, low enough to be reached."""
END = b"\r\n\r\n"
TOKEN = "a-token-of-the-fuzzer"
# Low, so that short inputs reach them; texts up to MAX_DEPTH bytes still can't exceed either.
MAX_DEPTH = MAX_VALUES = 20
MAX_DIGITS = 640
"""The lowest limit for the digits of an int that Python takes."""


def _adjustments() -> Any:
    adjustments = Adjustments(max_request_body_size=LIMIT + 1, inbuf_overflow=sys.maxsize)
    adjustments.head_cache = {}
    return adjustments


ADJUSTMENTS = _adjustments()
OPEN = Access(Settings())
GUARDED = Access(Settings(tokens={"shop": Secret(TOKEN)}, allowed_hosts=["x", ".example"]))


def received(pieces: Iterable[bytes]) -> tuple[Any, ...]:
    """What a parser makes of a request that arrives in these pieces."""
    ADJUSTMENTS.head_cache.clear()
    parser = Parser(ADJUSTMENTS)
    used = 0
    for piece in pieces:
        while piece and not parser.completed:
            taken = parser.received(piece)
            assert 0 < taken <= len(piece), (taken, piece)
            used += taken
            piece = piece[taken:]
    if not parser.completed:
        return ("incomplete", used)
    if parser.error is not None:
        # Of two reasons, the one that is seen first may depend on the pieces.
        return ("refused", parser.error.code)
    body = parser.get_body_stream().read()
    request = (parser.command, parser.path, parser.query, parser.version, parser.headers)
    return ("complete", used, *request, parser.connection_close, body)


def split(data: bytes, size: int) -> list[bytes]:
    """Pieces of this size."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def check_request(data: bytes) -> None:
    """Whole or in pieces, a request is read the same, and the lane agrees with the parser."""
    if not data:
        return
    size, data = data[0] + 2, data[1:]
    whole = received([data])
    singles = split(data[:MAX_SINGLE], 1)
    for pieces in ([*singles, data[MAX_SINGLE:]], split(data, size), [data[:size], data[size:]]):
        assert received(pieces) == whole, (size, received(pieces), whole)
    end = data.find(END) + len(END)
    # The lane's own condition.
    if end < len(END) or end > MAX_HEAD:
        return
    for access, is_trusted in product((OPEN, GUARDED), (False, True)):
        head = read_head(data[:end], access, is_trusted)
        if head is not None:
            check_lane(data[:end], head, access, is_trusted)


def check_lane(data: bytes, head: Head, access: Access, is_trusted: bool) -> None:
    """Check what the lane read of a request's head against the parser's result."""
    assert 0 <= head.length <= MAX_BODY
    # Bodies over the parser's limit go to it: FastLane.take.
    if head.length > LIMIT:
        return
    result, *facts = received([data + bytes(head.length)])
    assert result == "complete", (result, facts)
    used, command, path, query, version, fields, closes, body = facts
    assert (command, path, query, version) == ("POST", "/events", "", "1.1")
    assert (used, len(body), closes) == (len(data) + head.length, head.length, False)
    mimetype = fields.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    assert head.is_batch is (mimetype == NDJSON)
    assert access.sender(fields.get("AUTHORIZATION", "")) == (True, head.sender)
    assert head.forwarded_for == (fields.get("X_FORWARDED_FOR", "") if is_trusted else "")
    assert is_trusted or access.allows_host(fields["HOST"])


class _NotJson(ValueError):
    """A text that RFC 8259 or our limits exclude."""


def _refuse(literal: str) -> Any:
    raise _NotJson(literal)


def _finite(literal: str) -> float:
    if math.isinf(number := float(literal)):
        raise _NotJson(literal)
    return number


def measured(value: Any) -> tuple[int, int]:
    """The depth of a value, and the number of elements and members in it."""
    inner = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    )
    if inner is None:
        return 0, 0
    below = [measured(item) for item in inner]
    depth = 1 + max((depth for depth, _ in below), default=0)
    return depth, len(below) + sum(values for _, values in below)


def expected(data: bytes) -> Any:
    """The value of a JSON text as the standard library reads it; raises _NotJson."""

    def pairs(members: list[tuple[str, Any]]) -> Any:
        # Members with the same name count too.
        nonlocal repeated
        repeated = repeated or len(dict(members)) < len(members)
        return dict(members)

    repeated = False
    try:
        value = json.loads(
            data.removeprefix(codec.BOM).decode(),
            parse_constant=_refuse,
            parse_float=_finite,
            object_pairs_hook=pairs,
        )
    except (ValueError, RecursionError) as error:
        raise _NotJson(str(error)) from None
    depth, values = measured(value)
    if depth > MAX_DEPTH and not repeated:
        raise _NotJson("nested too deep")
    return None if repeated else (value, values > MAX_VALUES)


def check_datagram(data: bytes) -> None:
    """A datagram is decoded like the standard library does it, or refused with InvalidEvent."""
    event: Any = None
    refusal: InvalidEvent | None = None
    try:
        event = codec.decode(data, LIMIT)
    except InvalidEvent as error:
        refusal = error
    if len(data) > LIMIT:
        assert isinstance(refusal, EventTooLarge)
        return
    try:
        found = expected(data)
    except _NotJson:
        assert refusal is not None, event
        return
    # What repeated names hide is not in the value.
    if found is None:
        return
    value, has_too_many = found
    if has_too_many:
        assert isinstance(refusal, EventTooLarge), refusal
    else:
        # As text, since 1 == 1.0 == True.
        assert refusal is None, refusal
        assert repr(event) == repr(value)


FIELDS = (
    f"Authorization: Bearer {TOKEN}",
    "X-Forwarded-For: ::1, a",
    "X-Forwarded-Host: b.example",
)
REQUESTS = (
    *CORPUS.values(),
    *(data for data, _ in ANSWERS),
    *(request(b"{}", *FIELDS[: number + 1]) for number in range(len(FIELDS))),
)
TARGETS: dict[str, tuple[Callable[[bytes], None], Sequence[bytes]]] = {
    "requests": (check_request, [bytes([7]) + data for data in REQUESTS]),
    "datagrams": (check_datagram, [*BODIES, *BATCHES]),
}
"""By name: what is checked of each input, and inputs to begin with."""


def main() -> None:
    """Fuzz what the command line names."""
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(__doc__)
    check, seeds = TARGETS[sys.argv[1]]
    sys.set_int_max_str_digits(MAX_DIGITS)
    codec.MAX_DEPTH, codec.MAX_VALUES = MAX_DEPTH, MAX_VALUES
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(seeds):
            Path(folder, str(number)).write_bytes(seed[:MAX_INPUT])
        options = [f"-max_len={MAX_INPUT}", *sys.argv[2:], folder]
        atheris.Setup([sys.argv[0], *options], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
