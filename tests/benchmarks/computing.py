"""The rows of a daemon with a slave that computes in pure Python, and peers with such a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial

from .bench import Bar, Bench, Row, Sample
from .datagrams import Datagrams, count_datagrams, softnet_drops
from .floods import flood_of, ping_flood, udp_flood
from .load import EVENTS, PING, p99, pings
from .servers import (
    DAEMONKIT,
    DURABLE,
    SAME_APP,
    STARLETTE,
    UDP_ASYNCIO,
    CoreWatch,
    Peer,
    Server,
    Shares,
    computing,
)
from .slow import check_answers, latency_of, slow_bars

OURS = DAEMONKIT.name
RATE = 5.0
PACE = 0.7
PING_MS = 20
HTTP = "computing: HTTP, one event a request"
UDP = "computing: UDP flood"
DURABLE_HTTP = "computing, durable: HTTP, one event a request"
SLOW = "computing: /ping, 32 connections"


def pace_of(figure: str) -> str:
    """Rounds per second of the computing thread."""
    return f"{figure}, pace of the thread"


def share_of(figure: str) -> str:
    """Its pace, divided by its pace in the same server without a load."""
    return f"{figure}, relative pace"


def ping_of(figure: str) -> str:
    return f"{figure}, /ping, 99th percentile"


def _http(bench: Bench, figure: str, ours: Peer, theirs: Peer, path: str) -> Iterator[Sample]:
    is_slow = path == PING
    for peer in map(computing, (ours, theirs)):
        with bench.server(peer) as server:
            if is_slow:
                check_answers(server)
            alone = _pace_alone(bench, figure, server)
            flood = flood_of(bench, figure, server, path=path)
            yield figure, peer.name, flood.rate
            yield pace_of(figure), peer.name, flood.shares.pace
            yield share_of(figure), peer.name, flood.shares.pace / alone
            if is_slow:
                yield latency_of(figure), peer.name, 1000 * flood.p99
            elif peer.is_ours:
                yield ping_of(figure), OURS, 1000 * ping_flood(bench, ping_of(figure), server)


def _pace_alone(bench: Bench, figure: str, server: Server) -> float:
    def measure() -> tuple[float, Shares]:
        server.rest()
        watch = CoreWatch(server)
        time.sleep(bench.seconds)
        shares = watch.shares()
        return shares.pace, shares

    return bench.undisturbed(pace_of(figure), measure, is_full=False)


def _udp(bench: Bench) -> Iterator[Sample]:
    for peer in map(computing, (DAEMONKIT, UDP_ASYNCIO)):
        with bench.server(peer, udp=True) as server:
            alone = _pace_alone(bench, UDP, server)
            if peer.is_ours:
                measure = partial(_udp_pings, bench, server)
                taken = bench.undisturbed(ping_of(UDP), measure, is_full=False)
                yield ping_of(UDP), OURS, 1000 * p99(taken)
        flood = udp_flood(bench, UDP, peer)
        yield UDP, peer.name, flood.counted
        yield pace_of(UDP), peer.name, flood.shares.pace
        yield share_of(UDP), peer.name, flood.shares.pace / alone


def _udp_pings(bench: Bench, server: Server) -> tuple[list[float], Shares]:
    """Seconds until each answer of /ping during a flood of datagrams."""
    counted, dropped = server.settled_count(), server.known_drops()
    lost = softnet_drops()
    with Datagrams(server.port) as datagrams:
        sent: list[int] = []
        flood = threading.Thread(target=lambda: sent.append(datagrams.flood(bench.flood_seconds)))
        watch = CoreWatch(server)
        flood.start()
        try:
            taken = pings(server, flood.is_alive)
        finally:
            flood.join()
        shares = watch.shares()
    server.rest()
    count_datagrams(server, sent[0] + counted + dropped, softnet_drops() - lost)
    return taken, shares


def _bars(figure: str, peer: str) -> tuple[Bar, ...]:
    return (
        Bar(figure, "events/s", (peer,), RATE),
        *_pace_bars(figure, peer),
        Bar(ping_of(figure), "ms", (), PING_MS, at_most=True),
    )


def _pace_bars(figure: str, peer: str) -> tuple[Bar, ...]:
    """The bar for the thread; the peer's pace is shown, since a server may be fast because its
    thread starves."""
    return (Bar(share_of(figure), "x", (), PACE), Bar(share_of(figure), "x", (peer,)))


COMPUTING_ROWS = (
    Row(
        "computing",
        partial(_http, figure=HTTP, ours=DAEMONKIT, theirs=STARLETTE, path=EVENTS),
        _bars(HTTP, STARLETTE.name),
        http=(computing(DAEMONKIT), computing(STARLETTE)),
    ),
    Row(
        "computing-udp",
        _udp,
        _bars(UDP, UDP_ASYNCIO.name),
        udp=(computing(DAEMONKIT), computing(UDP_ASYNCIO)),
    ),
    Row(
        "computing-durable",
        partial(_http, figure=DURABLE_HTTP, ours=DURABLE, theirs=STARLETTE, path=EVENTS),
        _bars(DURABLE_HTTP, STARLETTE.name),
        http=(computing(DURABLE), computing(STARLETTE)),
    ),
    Row(
        "computing-slow",
        partial(_http, figure=SLOW, ours=DAEMONKIT, theirs=SAME_APP, path=PING),
        (*slow_bars(SLOW, "answers/s", SAME_APP.name), *_pace_bars(SLOW, SAME_APP.name)),
        http=(computing(DAEMONKIT), computing(SAME_APP)),
    ),
)
