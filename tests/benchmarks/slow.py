"""The row of the slow path: what daemonkit answers through Flask, compared with the same app and a
hand-written one on plain waitress."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

from .bench import Bar, Bench, Row, Sample
from .floods import flood_of
from .load import ANSWER, EVENT, EVENTS, HELLO, PING
from .servers import DAEMONKIT, SAME_APP, WAITRESS, Server

RATE, LATENCY = 0.97, 1.2
"""Relative to the peer: the lowest rate, and the highest 99th percentile of the latency."""
SERVERS = (DAEMONKIT, SAME_APP, WAITRESS)
CONNECTIONS = (1, 8, 32, 128)
EVENT_WITH_QUERY = f"{EVENTS}?x=1"
"""Not a plain request, so the fast lane doesn't take it."""
PATHS = {
    PING: "/ping",
    HELLO: "a route",
    EVENT_WITH_QUERY: "an event with a query",
}


def figure_of(path: str, connections: int) -> str:
    of = f"{connections} connection{'s' * (connections > 1)}"
    return f"slow path: {PATHS[path]}, {of}"


def latency_of(figure: str) -> str:
    return f"{figure}, 99th percentile"


def slow_bars(figure: str, unit: str, peer: str) -> tuple[Bar, ...]:
    """The bars for a rate on the slow path, and for its latency."""
    return (
        Bar(figure, unit, (peer,), RATE),
        Bar(latency_of(figure), "ms", (peer,), LATENCY, at_most=True),
    )


def _slow(bench: Bench) -> Iterator[Sample]:
    # All run at the same time, so that they are measured right after each other.
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.server(peer)) for peer in SERVERS]
        for server in servers:
            check_answers(server)
        for path in PATHS:
            for connections in CONNECTIONS:
                for server in servers:
                    figure = figure_of(path, connections)
                    flood = flood_of(bench, figure, server, connections, path=path)
                    yield figure, server.peer.name, flood.rate
                    yield latency_of(figure), server.peer.name, 1000 * flood.p99


def check_answers(server: Server) -> None:
    """Check one answer of each path; their number is checked with each flood."""
    if (answer := server.ask("GET", PING)) != (200, b"OK\n"):
        server.fail(f"answers {PING} {answer}")
    numbers = [server.next_number() for _ in range(2)]
    if numbers[1] != numbers[0] + 1:
        server.fail(f"numbers two answers of {HELLO} {numbers}")
    before = server.settled_count()
    status, body = server.ask("POST", EVENT_WITH_QUERY, EVENT)
    if (status, json.loads(body)) != (200, ANSWER) or server.settled_count() != before + 1:
        server.fail(f"answers {EVENT_WITH_QUERY} {status} {body!r}, or has not counted the event")


SLOW_ROW = Row(
    "slow",
    _slow,
    tuple(
        bar
        for path in PATHS
        for connections in CONNECTIONS
        for bar in (
            *slow_bars(figure_of(path, connections), "answers/s", SAME_APP.name),
            Bar(figure_of(path, connections), "answers/s", (WAITRESS.name,)),
        )
    ),
    http=SERVERS,
)
