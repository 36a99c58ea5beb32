"""How a server is measured: flooded over HTTP or UDP, or started."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from subprocess import DEVNULL

from .bench import Bench, Sample
from .datagrams import Datagrams, count_datagrams, softnet_drops
from .load import Wrk, first_answer
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
    """Events answered a second."""

    def measure() -> tuple[float, Shares]:
        with Wrk(server, bench.seconds, connections, events, differing=differing) as wrk:
            flood = wrk.result()
        return flood.rate, flood.shares

    return figure, server.peer.name, bench.undisturbed(figure, measure)


def udp_flood(bench: Bench, figure: str, peer: Peer) -> tuple[float, float]:
    """Datagrams sent and events counted, both a second.

    The events are those that the consumer has counted when the server comes to rest, by the time
    from the first datagram until then: what is left in buffers when the flood ends takes its time
    to be worked off, and counts as well.
    """
    return bench.undisturbed(figure, partial(_udp_flood, bench, peer))


def _udp_flood(bench: Bench, peer: Peer) -> tuple[tuple[float, float], Shares]:
    with bench.server(peer, udp=True) as server, Datagrams(server.port) as datagrams:
        lost_before, watch = softnet_drops(), CoreWatch(server)
        began = time.monotonic()
        sent = datagrams.flood(bench.flood_seconds)
        ended = time.monotonic()
        shares = watch.shares()
        rested = server.rest()
        counted = count_datagrams(server, sent, softnet_drops() - lost_before)
    return (sent / (ended - began), counted / (rested - began)), shares


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
