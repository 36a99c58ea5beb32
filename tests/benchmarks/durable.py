"""The rows of the durable queue: floods, puts, and a file in which events wait."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import cache
from os import fsync
from pathlib import Path

from daemonkit.events.durable.rows import STRIDE, StoredBatch
from daemonkit.events.durable.store import Store

from .bench import Bar, Bench, Row, Sample
from .floods import http_flood, udp_flood, until_ping
from .load import EVENT, ask, check_answer
from .processes import PINNED, CheckFailed, output_of
from .servers import DAEMONKIT, DRAINING, DURABLE, STARLETTE, STUCK, wait_until

OURS = DURABLE.name
MEMORY = "in memory"
IN_MEMORY = replace(DAEMONKIT, name=MEMORY)
CROWD = 128
DURABLE_HTTP = "durable: HTTP, one event a request"
DURABLE_CROWD = f"durable: HTTP, {CROWD} connections"
DURABLE_UDP = "durable: UDP flood"
DURABLE_SENT = "durable: UDP flood, sent"
PUTS = "durable: one event a put, 8 threads"
LOSSLESS = ("persist-queue", "litequeue", "huey")
LOSSY = ("huey, no fsync",)
PUT_SECONDS = 2.0
MANY, FEW = 1_000_000, 1000
SHAPES = {STRIDE: "", 27: ", 27 at a time"}
"""How many events each batch in a file has: the most, or as over HTTP."""
FEW_STARTS = 5
DRAIN_SECONDS = 120.0


def start_of(size: int) -> str:
    return f"durable: {MANY:,} waiting{SHAPES[size]}, start later by"


def drain_of(size: int) -> str:
    return f"durable: {MANY:,} waiting{SHAPES[size]}, drained"


def _http(bench: Bench) -> Iterator[Sample]:
    _check_kept(bench)
    for peer in (DURABLE, IN_MEMORY, STARLETTE):
        with bench.server(peer) as server:
            yield http_flood(bench, DURABLE_HTTP, server)
    for peer in (DURABLE, IN_MEMORY):
        with bench.server(peer) as server:
            yield http_flood(bench, DURABLE_CROWD, server, CROWD)


def _check_kept(bench: Bench, events: int = 10, crowd: int = 32) -> None:
    """Kill a server that has answered events and handled none: they must be in its file."""
    queue = bench.new_file()
    with bench.server(STUCK, queue=queue) as server, ExitStack() as stack:
        connections = [stack.enter_context(closing(server.connect())) for _ in range(crowd)]
        for _ in range(events):
            for connection in connections:
                ask(server, connection, EVENT)
            for connection in connections:
                check_answer(server, connection)
        server.signal(signal.SIGKILL)
        server.close()
    if (kept := _count(queue)) != events * crowd:
        raise CheckFailed(f"{kept} of {events * crowd} answered events are in the file")


def _count(queue: Path) -> int:
    """How many events a file holds."""
    with closing(Store(str(queue), create=False, busy_timeout=1.0)) as store:
        return store.count()


def _udp(bench: Bench) -> Iterator[Sample]:
    for peer in (DURABLE, IN_MEMORY):
        flood = udp_flood(bench, DURABLE_UDP, peer)
        yield DURABLE_SENT, peer.name, flood.sent
        yield DURABLE_UDP, peer.name, flood.counted


def _puts(bench: Bench) -> Iterator[Sample]:
    seconds = min(PUT_SECONDS, bench.seconds)
    for whose in (OURS, *LOSSLESS, *LOSSY):
        with _folder(bench) as folder:
            command = ("-m", f"{__package__}.puts", whose, str(folder), str(seconds))
            yield PUTS, whose, float(output_of(command, bench.cores.server))


@contextmanager
def _folder(bench: Bench) -> Iterator[Path]:
    """A folder that is removed afterwards, so that the files of a run don't accumulate."""
    folder = bench.new_file().parent
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _waiting(bench: Bench) -> Iterator[Sample]:
    for size in SHAPES:
        yield start_of(size), OURS, 1000 * (_start(bench, MANY, size) - _start(bench, 0, size))
        yield drain_of(size), OURS, _drain(bench, MANY, size)
        for _ in range(FEW_STARTS):
            yield drain_of(size), f"{FEW:,} waiting", _drain(bench, FEW, size)


def _start(bench: Bench, events: int, size: int) -> float:
    with _copy(bench, events, size) as queue:
        return until_ping(bench, DURABLE, queue)


def _drain(bench: Bench, events: int, size: int) -> float:
    """Events handled per second, from the first to the last in a file."""
    with _copy(bench, events, size) as queue:
        with bench.server(DRAINING, queue=queue) as server:
            wait_until(
                lambda: server.count() >= events,
                f"{events} events handled",
                0.25,
                DRAIN_SECONDS,
            )
            server.rest()
            seconds = server.drained_in()
            handled = server.count()
            server.stop()
        if handled != events:
            server.fail(f"has handled {handled} of {events} events")
        if left := _count(queue):
            server.fail(f"has left {left} of {events} events in the file")
    return (events - 1) / seconds


@contextmanager
def _copy(bench: Bench, events: int, size: int) -> Iterator[Path]:
    """A copy of such a file, because it will be drained."""
    original = waiting_file(bench.folder, events, size)
    with _folder(bench) as folder:
        queue = folder / original.name
        shutil.copyfile(original, queue)
        # Otherwise it would be written while the server is measured.
        with queue.open("rb") as file:
            fsync(file.fileno())
        yield queue


@cache
def waiting_file(folder: Path, events: int, size: int) -> Path:
    """A file in which this many events wait, `size` per batch."""
    queue = folder / f"{events}-{size}.db"
    with closing(Store(str(queue), create=True, busy_timeout=1.0)) as store, store.transaction():
        for number, first in enumerate(range(0, events, size), 1):
            lines = [EVENT] * min(size, events - first)
            data = b"\n".join(lines)
            store.add(StoredBatch(number * STRIDE, len(lines), time.time(), "http", None, data))
    return queue


DURABLE_ROWS = (
    Row(
        "durable",
        _http,
        (
            Bar(DURABLE_HTTP, "events/s", (MEMORY,), 0.85),
            Bar(DURABLE_HTTP, "events/s", (STARLETTE.name,), 1.0),
            Bar(DURABLE_CROWD, "events/s", (MEMORY,)),
        ),
        http=(DURABLE, STARLETTE),
    ),
    Row(
        "durable-udp",
        _udp,
        (Bar(DURABLE_UDP, "events/s", (MEMORY,), 0.5, enough=150_000),),
        udp=(DURABLE,),
    ),
    Row(
        "durable-puts",
        _puts,
        (Bar(PUTS, "puts/s", LOSSLESS, 10.0), Bar(PUTS, "puts/s", LOSSY)),
    ),
    Row(
        "durable-waiting",
        _waiting,
        pinnings=(PINNED,),
        bars=tuple(
            bar
            for size in SHAPES
            for bar in (
                Bar(start_of(size), "ms", (), 500, at_most=True),
                Bar(drain_of(size), "events/s", (f"{FEW:,} waiting",), 0.8),
            )
        ),
    ),
)
