from __future__ import annotations

import pytest

from daemonkit import Daemon
from daemonkit.testing import running

from .connections import EVENT, ask
from .raw import connect


@pytest.mark.parametrize("fast_events", [True, False])
def test_answers_are_counted_by_status_whoever_gives_them(app: Daemon, fast_events: bool) -> None:
    with running(app, {"master": {"fast_events": fast_events}}) as client:
        with connect(client) as sock:
            for _ in range(3):
                ask(sock, EVENT)
        client.get("/missing")

        def answers() -> dict[str, int]:
            counts: dict[str, int] = client.status()["http"]["answers"]
            return counts

        client.wait_until(lambda: "404" in answers() and answers()["200"] >= 3)
