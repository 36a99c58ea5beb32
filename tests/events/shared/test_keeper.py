from __future__ import annotations

import logging
import time

import pytest
import redis

from daemonkit.events.shared.engine import Link

from ...engines import Engine
from .conftest import Node, wait_until
from .proxy import DOWN, UP, Proxy
from .test_puts import proxy, quick, through

__all__ = ["proxy", "quick"]


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_result_that_is_cut_anywhere_is_saved_once(
    engine: Engine, client: redis.Redis, proxy: Proxy, quick: None, direction: str
) -> None:
    """Handled, failed, retried and dead events; and heartbeats."""
    node = Node(engine.address(), timeout=60.0)
    node.queue._keeper._link.close()
    node.queue._keeper._link = Link(through(proxy, node))
    node.start()
    node.handle(lambda event: 1 / (event % 2))
    try:
        count = 0
        while count < (60 if direction == UP else 12):
            proxy.cut_after(direction, (17 if direction == UP else 4) * count)
            node.put(2 * count, 2 * count + 1)
            count += 1
            wait_until(lambda: not len(node.queue) and not node.queue._in_flight.unsaved)
        proxy.forget_cut()
        wait_until(lambda: client.zcard("{daemonkit:app}:dead") == count)
        assert client.xlen("{daemonkit:app}:stream") == 0
        counts = client.hgetall("{daemonkit:app}:counts")
        assert (counts["waiting"], counts["dead"], counts["retried"]) == (
            "0",
            str(count),
            str(count),
        )
        assert sorted(node.handled) == list(range(1, 2 * count, 2))
    finally:
        node.close()


def test_an_engine_that_is_away_is_away_until_it_answers(
    own_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node = Node(own_engine.address()).start()
    try:
        node.put(1)
        own_engine.kill()
        wait_until(lambda: node.queue.outage)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert node.queue.outage
            time.sleep(0.001)
        # The connection that breaks has a text of its own.
        assert 1 <= caplog.text.count(" is away: ") <= 2
        own_engine.start()
        wait_until(lambda: not node.queue.outage)
        assert caplog.text.count(" is there again") == 1
    finally:
        node.close()
