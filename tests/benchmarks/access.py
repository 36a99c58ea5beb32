"""The row of what a check of the sender costs, each compared with a daemon that has none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from .bench import Bar, Bench, Row, Sample
from .floods import http_flood
from .servers import DAEMONKIT, WITH_HOOK, WITH_META, WITH_TOKEN, Peer

FIGURES: dict[str, Peer] = {
    "HTTP, with a token": WITH_TOKEN,
    "HTTP, a handler that takes meta": WITH_META,
    "HTTP, with a before_request hook": WITH_HOOK,
}
WITHOUT = "without"
RATE = 0.93
"""The lowest rate, relative to that without."""


def _access(bench: Bench) -> Iterator[Sample]:
    # All run at the same time, so that each is measured right after the one without.
    with ExitStack() as stack:
        without, *servers = [
            stack.enter_context(bench.server(peer)) for peer in (DAEMONKIT, *FIGURES.values())
        ]
        for figure, server in zip(FIGURES, servers, strict=True):
            yield figure, WITHOUT, http_flood(bench, figure, without)[2]
            yield http_flood(bench, figure, server)


ACCESS_ROW = Row(
    "access",
    _access,
    tuple(
        Bar(figure, "events/s", (WITHOUT,), None if peer is WITH_HOOK else RATE)
        for figure, peer in FIGURES.items()
    ),
    http=(DAEMONKIT, *FIGURES.values()),
)
