"""The row of hostile bodies: how long /ping waits meanwhile, and how much memory they take."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from daemonkit.config.defaults import SETTINGS

from .bench import Bar, Bench, Row, Sample
from .load import pings
from .processes import TIMEOUT, field
from .servers import DAEMONKIT, FILLING, CoreWatch, Server, Shares

MIB = 2**20
LONGEST_PING = 200
"""Milliseconds."""
QUEUE_MEMORY = SETTINGS["queue_memory"].default
SPARE_MEMORY = 100e6
"""Bytes beyond queue_memory."""
MEMORY = "memory, a queue full of small objects"
CHUNKED = b"Transfer-Encoding: chunked"
PING_INTERVAL = 0.002
LEAST_SECONDS = 0.3
"""Of asking for /ping, even if all requests are refused at once."""


def _post(body: bytes, field: bytes = b"") -> bytes:
    field = field or b"Content-Length: %d" % len(body)
    return b"POST /events HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n%b" % (field, body)


def _small_objects(number: int) -> bytes:
    return _post(b"[" + b'{"a":1},' * number + b"1]")


@dataclass(frozen=True)
class Hostile:
    """Requests that arrive at the same time, and the statuses that may answer them; a refusal may
    also end the connection while the body is still being sent."""

    make: Callable[[], bytes]
    clients: int
    codes: tuple[int, ...]


FIRST = Hostile(lambda: _small_objects(1_250_000), 6, (413,))
HOSTILE = {
    "10 MB of small objects, 6 clients": FIRST,
    "1 MB of small objects, 20 clients": Hostile(lambda: _small_objects(99_000), 20, (200, 503)),
    "10 MB of empty lists": Hostile(lambda: _post(b"[" + b"[]," * 3_300_000 + b"1]"), 1, (413,)),
    "10 MB of empty lists, 3 clients": Hostile(
        lambda: _post(b"[" + b"[]," * 3_300_000 + b"1]"), 3, (413,)
    ),
    "3 MB of blank lines, 20 clients": Hostile(lambda: b"\r\n" * 1_500_000, 20, (400,)),
    "9 MB of a chunk's extension, 20 clients": Hostile(
        lambda: _post(b"1;a=" + b"x" * 9_000_000, CHUNKED), 20, (400,)
    ),
    "9 MB of trailers, 20 clients": Hostile(
        lambda: _post(b"1\r\n1\r\n0\r\n" + b"X: y\r\n" * 1_500_000, CHUNKED), 20, (400, 431)
    ),
}


def _limits(bench: Bench) -> Iterator[Sample]:
    for what, hostile in HOSTILE.items():
        data = hostile.make()

        def measure(hostile: Hostile = hostile, data: bytes = data) -> tuple[float, Shares]:
            with bench.server(DAEMONKIT) as server:
                watch = CoreWatch(server)
                worst = max(pings_during(server, hostile, data))
                return worst, watch.shares()

        figure = figure_of(what)
        worst = bench.undisturbed(figure, measure, is_full=False)
        yield figure, DAEMONKIT.name, 1000 * worst
    yield MEMORY, DAEMONKIT.name, _peak_memory(bench)


def figure_of(what: str) -> str:
    return f"longest /ping, {what}"


def pings_during(server: Server, hostile: Hostile, data: bytes) -> list[float]:
    """Seconds until each answer of /ping while the requests arrive and are answered."""
    found: list[int | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(answer_to(server, data)))
        for _ in range(hostile.clients)
    ]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LEAST_SECONDS

    def is_running() -> bool:
        return time.monotonic() < until or any(thread.is_alive() for thread in threads)

    taken = pings(server, is_running, PING_INTERVAL)
    for thread in threads:
        thread.join()
    if wrong := set(found) - {*hostile.codes, None}:
        server.fail(f"answers {sorted(map(str, wrong))} instead of {hostile.codes}")
    return taken


def answer_to(server: Server, data: bytes) -> int | None:
    """The status of the answer to a request; None if the connection ends without one."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT) as sock:
        with suppress(ConnectionError):
            sock.sendall(data)
        with suppress(ConnectionError):
            answer = sock.recv(65536)
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    return int(status[1]) if status else None


def _peak_memory(bench: Bench) -> float:
    """The most MiB while events are sent until the queue is full, and then many at a time."""
    data = _small_objects(99_000)
    with bench.server(FILLING) as server:
        while (code := answer_to(server, data)) == 200:
            pass
        if code != 503:
            server.fail(f"answers {code} when the queue is full")
        pings_during(server, Hostile(lambda: data, 6, (503,)), data)
        pings_during(server, FIRST, FIRST.make())
        return field(Path(f"/proc/{server.pid}/status"), "VmHWM") / 1024


LIMITS_ROW = Row(
    "limits",
    _limits,
    (
        *(Bar(figure_of(what), "ms", (), LONGEST_PING, at_most=True) for what in HOSTILE),
        Bar(MEMORY, "MiB", (), round((QUEUE_MEMORY + SPARE_MEMORY) / MIB), at_most=True),
    ),
    http=(DAEMONKIT,),
)
