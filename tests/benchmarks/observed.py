"""The row of what observers cost: events while metrics are scraped and pages are open, compared
with a daemon that nobody looks at; and a scrape of many slaves."""

from __future__ import annotations

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager

from .bench import Bar, Bench, Row, Sample
from .floods import http_flood, udp_flood
from .processes import TIMEOUT
from .servers import DAEMONKIT, MANY_SLAVES, Server

SLAVES = 200
HTTP = "HTTP, scraped every second and 3 pages open"
UDP = "UDP flood, scraped every second and 3 pages open"
SCRAPE = f"a scrape with {SLAVES} slaves"
WITHOUT = "without"
RATE = 0.97
"""The lowest rate, relative to that without."""
LONGEST_SCRAPE = 20
"""Milliseconds."""
SCRAPES = 50
PAGES = 3
SCRAPE_INTERVAL, PAGE_INTERVAL = 1.0, 2.0
"""Seconds."""
METRICS = {"/metrics": 1}
PAGE = {
    "/status": 1,
    "/status/history?since={since:.0f}": 1,
    "/status/warnings": 3,
    "/status/failed": 5,
}
"""What is asked for every so many times, as by web/page/page.js."""


def _observed(bench: Bench) -> Iterator[Sample]:
    with bench.server(DAEMONKIT) as server:
        yield HTTP, WITHOUT, http_flood(bench, HTTP, server)[2]
        with observers(server):
            yield http_flood(bench, HTTP, server)
    yield UDP, WITHOUT, udp_flood(bench, UDP, DAEMONKIT).counted
    yield UDP, DAEMONKIT.name, udp_flood(bench, UDP, DAEMONKIT, during=observers).counted
    with bench.server(MANY_SLAVES) as server:
        yield SCRAPE, DAEMONKIT.name, 1000 * statistics.median(_scrapes(server))


def _scrapes(server: Server) -> list[float]:
    taken = []
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)) as client:
        for _ in range(SCRAPES):
            began = time.perf_counter()
            if _get(client, "/metrics").count("daemonkit_slave_up{") != SLAVES:
                server.fail(f"doesn't show the metrics of {SLAVES} slaves")
            taken.append(time.perf_counter() - began)
    # The first one imports the library.
    return taken[1:]


@contextmanager
def observers(server: Server) -> Iterator[None]:
    """A Prometheus and some pages, which look at the server until the end of the block."""
    # What the first requests import is imported once, not every three seconds.
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)) as client:
        for path in METRICS | PAGE:
            _get(client, path.format(since=0))
    is_over = threading.Event()
    plans = [(METRICS, SCRAPE_INTERVAL), *[(PAGE, PAGE_INTERVAL)] * PAGES]
    threads = [
        threading.Thread(target=_observe, args=(server, paths, interval, is_over))
        for paths, interval in plans
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def _observe(
    server: Server, paths: Mapping[str, int], interval: float, is_over: threading.Event
) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT)) as client:
        for turn in itertools.count():
            for path, every in paths.items():
                if turn % every == 0:
                    _get(client, path.format(since=time.time() - interval))
            if is_over.wait(interval):
                return


def _get(client: http.client.HTTPConnection, path: str) -> str:
    client.request("GET", path)
    answer = client.getresponse()
    text = answer.read().decode()
    if answer.status != 200:
        raise RuntimeError(f"{path} is answered {answer.status}: {text}")
    return text


OBSERVED_ROW = Row(
    "observed",
    _observed,
    (
        Bar(HTTP, "events/s", (WITHOUT,), RATE),
        Bar(UDP, "events/s", (WITHOUT,), RATE),
        Bar(SCRAPE, "ms", (), LONGEST_SCRAPE, at_most=True),
    ),
    http=(DAEMONKIT, MANY_SLAVES),
)
