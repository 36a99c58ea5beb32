"""The rows: what is measured in each, and the bars that it must meet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from subprocess import PIPE

from .access import ACCESS_ROW
from .bench import Bar, Bench, Row, Sample
from .computing import COMPUTING_ROWS
from .datagrams import Datagrams, stopped
from .durable import DURABLE_ROWS
from .floods import http_flood, ping_flood, udp_flood, until_ping
from .limits import LIMITS_ROW
from .load import BATCH, idle_connections
from .observed import OBSERVED_ROW
from .processes import PINNED, CheckFailed, end_group, output_of, rss_kib, spawn
from .servers import (
    AIOHTTP,
    DAEMONKIT,
    FASTAPI,
    GUNICORN,
    HTTP_PEERS,
    STARLETTE,
    UDP_ASYNCIO,
    UDP_BARE,
    UDP_PEERS,
    UDP_SOCKETSERVER,
    UDP_UVLOOP,
    WAITRESS,
)
from .shared import SHARED_ROWS
from .slow import SLOW_ROW

OURS = DAEMONKIT.name
IDLE_CONNECTIONS = 500
BURST = 20_000
START_PAIRS = 11
STOPS = 3
SWITCHES_SECONDS = 5.0
BARE_IMPORT = "import flask, waitress, yaml"
HTTP = "HTTP, one event a request"
HEADS = "HTTP, heads that differ"
IDLE = f"HTTP, {IDLE_CONNECTIONS} idle connections"
NDJSON_FIGURE = f"NDJSON, {len(BATCH)} events a request"
UDP = "UDP flood"
SENT = "UDP flood, sent"
BURST_SUM = f"UDP burst of {BURST:,}, received + dropped"
BURST_DROPS = f"UDP burst of {BURST:,}, shown as dropped"
QUEUE = "queue to handler"
START = "start until /ping answers"
MEMORY = "memory, idle"
SWITCHES = "voluntary context switches, idle"
STOP = "SIGTERM to exit, idle"
PING = "/ping in the flood, 99th percentile"
DECODE = "JSONDecoder().decode"
ALONE = (PINNED,)
"""For rows without a load, to which another core makes no difference."""
IMPORT = "import flask, waitress, yaml"


def _http(bench: Bench) -> Iterator[Sample]:
    for peer in HTTP_PEERS:
        with bench.server(peer) as server:
            yield http_flood(bench, HTTP, server)
    for peer in (DAEMONKIT, STARLETTE, AIOHTTP):
        with bench.server(peer) as server:
            yield http_flood(bench, HEADS, server, differing=True)


def _idle(bench: Bench) -> Iterator[Sample]:
    for peer in (DAEMONKIT, STARLETTE):
        with bench.server(peer) as server, idle_connections(server, IDLE_CONNECTIONS):
            yield http_flood(bench, IDLE, server)


def _ndjson(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT) as server:
        yield http_flood(bench, NDJSON_FIGURE, server, 8, BATCH)
    yield NDJSON_FIGURE, DECODE, _alone(bench, "decode")


def _queue(bench: Bench) -> Iterator[Sample]:
    yield QUEUE, OURS, _alone(bench, "queue")


def _alone(bench: Bench, what: str) -> float:
    return float(output_of(("-m", f"{__package__}.alone", what), bench.cores.server))


def _udp(bench: Bench) -> Iterator[Sample]:
    for peer in UDP_PEERS:
        flood = udp_flood(bench, UDP, peer)
        yield SENT, peer.name, flood.sent
        yield UDP, peer.name, flood.counted


def _burst(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT, udp=True) as server, Datagrams(server.port) as datagrams:
        with stopped(server):
            datagrams.send(BURST)
        server.rest()
        counted, shown, drops = server.count(), server.status()["udp"], server.kernel_drops()
        if counted != shown["received"]:
            server.fail(
                f"shows {shown['received']} datagrams as received, and has handled {counted}"
            )
        yield BURST_SUM, OURS, shown["received"] + shown["kernel_drops"]
        yield BURST_SUM, "sent", BURST
        yield BURST_DROPS, OURS, shown["kernel_drops"]
        yield BURST_DROPS, "the kernel", drops or 0


def _start(bench: Bench) -> Iterator[Sample]:
    until_ping(bench, DAEMONKIT), _import(bench)
    for _ in range(-(-START_PAIRS // bench.rounds)):
        yield START, OURS, 1000 * until_ping(bench, DAEMONKIT)
        yield START, IMPORT, 1000 * _import(bench)


def _import(bench: Bench) -> float:
    began = time.perf_counter()
    process = spawn(("-c", f"{BARE_IMPORT}; print(flush=True)"), bench.cores.server, stdout=PIPE)
    try:
        assert process.stdout is not None
        # Until the import is done, not until the process has ended.
        if process.stdout.readline() != b"\n":
            raise CheckFailed(f"python -c '{BARE_IMPORT}' failed: {process.wait()}")
        return time.perf_counter() - began
    finally:
        end_group(process)


def _memory(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT) as server:
        time.sleep(1.0)
        yield MEMORY, OURS, server.rss_kib() / 1024
    code = f"{BARE_IMPORT}, sys, time; print(flush=True); time.sleep(60)"
    process = spawn(("-c", code), bench.cores.server, stdout=PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield MEMORY, IMPORT, rss_kib(process.pid) / 1024
    finally:
        end_group(process)


def _switches(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT) as server:
        time.sleep(1.0)
        before, began = server.voluntary_switches(), time.monotonic()
        time.sleep(SWITCHES_SECONDS)
        switches = server.voluntary_switches() - before
        yield SWITCHES, OURS, switches / (time.monotonic() - began)


def _stop(bench: Bench) -> Iterator[Sample]:
    for _ in range(STOPS):
        with bench.server(DAEMONKIT) as server:
            time.sleep(0.3)
            yield STOP, OURS, 1000 * server.stop()


def _ping(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT) as server:
        yield PING, OURS, 1000 * ping_flood(bench, PING, server)


ROWS = (
    Row(
        "http",
        _http,
        (
            Bar(HTTP, "events/s", (STARLETTE.name, AIOHTTP.name), 1.10),
            Bar(HTTP, "events/s", (WAITRESS.name,), 5.0),
            Bar(HTTP, "events/s", (GUNICORN.name, FASTAPI.name)),
            Bar(HEADS, "events/s", (STARLETTE.name, AIOHTTP.name)),
        ),
        http=HTTP_PEERS,
    ),
    Row(
        "idle",
        _idle,
        (Bar(IDLE, "events/s", (STARLETTE.name,), 1.0),),
        http=(DAEMONKIT, STARLETTE),
    ),
    Row("ndjson", _ndjson, (Bar(NDJSON_FIGURE, "events/s", (DECODE,), 0.5),), http=(DAEMONKIT,)),
    Row(
        "udp",
        _udp,
        (
            Bar(UDP, "events/s", (UDP_BARE.name,), 0.9),
            Bar(UDP, "events/s", (UDP_ASYNCIO.name,), 5.0),
            Bar(UDP, "events/s", (UDP_UVLOOP.name, UDP_SOCKETSERVER.name)),
        ),
        udp=UDP_PEERS,
    ),
    Row(
        "burst",
        _burst,
        (
            Bar(BURST_SUM, "", ("sent",), 1.0, exactly=True),
            Bar(BURST_DROPS, "", ("the kernel",), 1.0, exactly=True),
        ),
        udp=(DAEMONKIT,),
        pinnings=ALONE,
    ),
    Row("queue", _queue, (Bar(QUEUE, "events/s", (), 400_000),)),
    Row("start", _start, (Bar(START, "ms", (IMPORT,), 1.35, at_most=True),), pinnings=ALONE),
    Row("memory", _memory, (Bar(MEMORY, "MiB", (IMPORT,), 1.2, at_most=True),), pinnings=ALONE),
    Row("switches", _switches, (Bar(SWITCHES, "1/s", (), 2, at_most=True),), pinnings=ALONE),
    Row("stop", _stop, (Bar(STOP, "ms", (), 100, at_most=True),), pinnings=ALONE),
    Row("ping", _ping, (Bar(PING, "ms", (), 20, at_most=True),), http=(DAEMONKIT,)),
    ACCESS_ROW,
    OBSERVED_ROW,
    LIMITS_ROW,
    SLOW_ROW,
    *COMPUTING_ROWS,
    *DURABLE_ROWS,
    *SHARED_ROWS,
)
