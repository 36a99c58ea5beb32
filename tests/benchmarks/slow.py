"""The row of the slow path: what daemonkit answers through Flask, and the same on plain waitress,
by the same app and by one written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

from .bench import Bar, Bench, Row, Sample
from .floods import flood_of
from .load import ANSWER, EVENT, EVENTS, HELLO, PING
from .servers import DAEMONKIT, SAME_APP, WAITRESS, Server

RATE, LATENCY = 0.97, 1.2
"""By the peer's: the rate at least, and the 99th percentile of the latency at most."""
SERVERS = (DAEMONKIT, SAME_APP, WAITRESS)
CONNECTIONS = (1, 8, 32, 128)
EVENT_WITH_QUERY = f"{EVENTS}?x=1"
"""Not plain, and so none for the fast lane."""
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
    """What is demanded of a rate on the slow path, and of its latency."""
    return (
        Bar(figure, unit, (peer,), RATE),
        Bar(latency_of(figure), "ms", (peer,), LATENCY, at_most=True),
    )


def _slow(bench: Bench) -> Iterator[Sample]:
    # They run all the time, so that they have their turns right after each other.
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
    """Check one answer of each path; how many there are is checked with each flood."""
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
