"""The rows of the shared queue: floods, puts and takes, with an engine on the load's core."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace

from daemonkit.events.shared.editor import SharedEditor

from ..engines import Engine, running_engine
from .bench import Bar, Bench, Row, Sample
from .durable import CROWD, IN_MEMORY, MEMORY
from .floods import http_flood
from .load import BATCH, EVENT, EVENTS, ask, check_answer, pings
from .processes import output_of
from .servers import DAEMONKIT, DRAINING, STARLETTE, Peer, wait_until

OURS = DAEMONKIT.name
SHARED_CROWD = f"shared: HTTP, {CROWD} connections"
SHARED_NDJSON = f"shared: NDJSON, {len(BATCH)} events a request"
SHARED_DRAIN = "shared: engine to handler"
SHARED_PING = "shared: /ping while the engine stands still, longest"
SHARED_PUTS = "shared: one event a put, 8 threads"
SHARED_HANDLED = "shared: handled"
PEERS = ("huey", "dramatiq", "faststream")
WAITING = 100_000
ENTRY = 32
"""Events in each entry that is to be drained."""
DRAIN_SECONDS = 120.0
PUT_SECONDS = 2.0
HANDLED = 20_000
"""Events that each library handles."""
SIZE = 10_000_000


@contextmanager
def _engine(bench: Bench) -> Iterator[Engine]:
    """A new engine; it inherits the cores of the load."""
    with running_engine(bench.new_file().parent / "engine") as engine:
        yield engine


def _on(engine: Engine, peer: Peer = DAEMONKIT) -> Peer:
    settings = (f"queue={engine.address()}", f"queue_size={SIZE}")
    options = [option for setting in settings for option in ("--set", f"master.{setting}")]
    return replace(
        peer,
        command=lambda port: (*peer.command(port), *options),
        is_durable=False,
        is_shared=True,
    )


def _http(bench: Bench) -> Iterator[Sample]:
    with _engine(bench) as engine, bench.server(_on(engine)) as server:
        yield http_flood(bench, SHARED_CROWD, server, CROWD)
    for peer in (IN_MEMORY, STARLETTE):
        with bench.server(peer) as server:
            yield http_flood(bench, SHARED_CROWD, server, CROWD)


def _ndjson(bench: Bench) -> Iterator[Sample]:
    with _engine(bench) as engine, bench.server(_on(engine)) as server:
        yield http_flood(bench, SHARED_NDJSON, server, 8, BATCH)
    with bench.server(IN_MEMORY) as server:
        yield http_flood(bench, SHARED_NDJSON, server, 8, BATCH)


def _drain(bench: Bench) -> Iterator[Sample]:
    with _engine(bench) as engine:
        editor = SharedEditor(f"{engine.address()}?name=benchmark", create=True)
        with closing(editor):
            for _ in range(0, WAITING, ENTRY):
                editor.add([EVENT] * ENTRY)
        with bench.server(_on(engine, DRAINING)) as server:
            wait_until(lambda: server.count() >= WAITING, f"{WAITING} events", 0.25, DRAIN_SECONDS)
            server.rest()
            seconds = server.drained_in()
            if (handled := server.count()) != WAITING:
                server.fail(f"has handled {handled} of {WAITING} events")
        yield SHARED_DRAIN, OURS, (WAITING - 1) / seconds


def _ping(bench: Bench) -> Iterator[Sample]:
    with _engine(bench) as engine, bench.server(_on(engine)) as server:
        with closing(server.connect()) as connection:
            ask(server, connection, EVENT)
            check_answer(server, connection)
            engine.send_signal(signal.SIGSTOP)
            # Parked meanwhile.
            connection.request("POST", EVENTS, EVENT)
            until = time.monotonic() + bench.seconds
            longest = max(pings(server, lambda: time.monotonic() < until))
            engine.send_signal(signal.SIGCONT)
        yield SHARED_PING, OURS, 1000 * longest


def _libraries(bench: Bench) -> Iterator[Sample]:
    seconds = min(PUT_SECONDS, bench.seconds)
    for whose in (OURS, *PEERS):
        for figure, what, amount in (
            (SHARED_PUTS, "put", str(seconds)),
            (SHARED_HANDLED, "handle", str(HANDLED)),
        ):
            with _engine(bench) as engine:
                command = (
                    *("-m", f"{__package__}.shared_puts", whose, what),
                    *(engine.address(), amount),
                )
                yield figure, whose, float(output_of(command, bench.cores.server))


SHARED_ROWS = (
    Row(
        "shared",
        _http,
        (
            Bar(SHARED_CROWD, "events/s", (MEMORY,), 0.8),
            Bar(SHARED_CROWD, "events/s", (STARLETTE.name,), 2.0),
        ),
        http=(DAEMONKIT, STARLETTE),
    ),
    Row("shared-ndjson", _ndjson, (Bar(SHARED_NDJSON, "events/s", (MEMORY,), 0.4),)),
    Row("shared-drain", _drain, (Bar(SHARED_DRAIN, "events/s"),)),
    Row("shared-ping", _ping, (Bar(SHARED_PING, "ms", (), 50, at_most=True),)),
    Row(
        "shared-puts",
        _libraries,
        (Bar(SHARED_PUTS, "puts/s", PEERS), Bar(SHARED_HANDLED, "events/s", PEERS)),
    ),
)
