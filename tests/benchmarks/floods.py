"""How a server is measured: flooded over HTTP or UDP, or started."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

from .bench import Bench, Sample
from .datagrams import Datagrams, count_datagrams, softnet_drops
from .load import EVENTS, Flood, Wrk, first_answer, p99, pings
from .processes import end_group, spawn
from .servers import CoreWatch, Peer, Server, Shares, free_port


def http_flood(
    bench: Bench,
    figure: str,
    server: Server,
    connections: int = 32,
    events: list[bytes] | None = None,
    *,
    differing: bool = False,
) -> Sample:
    """Events answered per second."""
    flood = flood_of(bench, figure, server, connections, events, differing=differing)
    return figure, server.peer.name, flood.rate


def flood_of(
    bench: Bench,
    figure: str,
    server: Server,
    connections: int = 32,
    events: list[bytes] | None = None,
    *,
    differing: bool = False,
    path: str = EVENTS,
) -> Flood:
    """The result of a wrk run; the server should use a whole core, unless it waits for a load of
    one connection, or has a computing thread."""

    def measure() -> tuple[Flood, Shares]:
        with Wrk(server, bench.seconds, connections, events, differing=differing, path=path) as wrk:
            flood = wrk.result()
        return flood, flood.shares

    is_full = connections > 1 and not server.peer.computes
    return bench.undisturbed(figure, measure, is_full=is_full)


def ping_flood(bench: Bench, figure: str, server: Server) -> float:
    """The 99th percentile of the seconds until an answer of /ping during a flood of events."""

    def measure() -> tuple[float, Shares]:
        with Wrk(server, bench.seconds) as wrk:
            return p99(pings(server, wrk.is_running)), wrk.result().shares

    return bench.undisturbed(figure, measure, is_full=not server.peer.computes)


@dataclass(frozen=True)
class UdpFlood:
    """Datagrams sent and events counted, both per second."""

    sent: float
    counted: float
    shares: Shares


def udp_flood(
    bench: Bench,
    figure: str,
    peer: Peer,
    during: Callable[[Server], AbstractContextManager[object]] = nullcontext,
) -> UdpFlood:
    """Flood a new server with datagrams.

    during: goes on meanwhile.

    The rate is the consumer's count when the server comes to rest, divided by the time from the
    first datagram until then: what is in buffers when the flood ends counts, and so does the time
    to drain them.
    """

    def measure() -> tuple[UdpFlood, Shares]:
        flood = _udp_flood(bench, peer, during)
        return flood, flood.shares

    return bench.undisturbed(figure, measure, is_full=not peer.computes)


def _udp_flood(
    bench: Bench, peer: Peer, during: Callable[[Server], AbstractContextManager[object]]
) -> UdpFlood:
    with bench.server(peer, udp=True) as server, Datagrams(server.port) as datagrams:
        lost_before = softnet_drops()
        with during(server):
            watch, began = CoreWatch(server), time.monotonic()
            sent = datagrams.flood(bench.flood_seconds)
            ended = time.monotonic()
        shares = watch.shares()
        rested = server.rest()
        counted = count_datagrams(server, sent, softnet_drops() - lost_before)
    return UdpFlood(sent / (ended - began), counted / (rested - began), shares)


def until_ping(bench: Bench, peer: Peer, queue: Path | None = None) -> float:
    """Seconds from the start of a server's process until it answers /ping."""
    port = free_port()
    command = peer.with_queue(port, queue)
    began = time.perf_counter()
    process = spawn(command, bench.cores.server, stdout=DEVNULL)
    try:
        return first_answer(port, "/ping", process) - began
    finally:
        end_group(process)
