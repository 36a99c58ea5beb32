from __future__ import annotations

import logging
import threading
import time

import pytest
import redis

from daemonkit.events.shared.engine import Link
from daemonkit.events.shared.layout import RELEASED
from daemonkit.events.shared.scripts import CLAIM

from ...engines import Engine
from .conftest import TIMEOUT, Node, NodeMaker, wait_until
from .proxy import DOWN, UP, Proxy
from .test_puts import proxy, quick, through

__all__ = ["proxy", "quick"]

STREAM = "{daemonkit:app}:stream"
LATER = "9000000000000-0"
"""An id after those of puts; one of Redis's own could have the number of a put."""


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
        assert client.xlen(STREAM) == 0
        counts = client.hgetall("{daemonkit:app}:counts")
        assert (counts["waiting"], counts["dead"], counts["retried"]) == (
            "0",
            str(count),
            str(count),
        )
        assert sorted(node.handled) == list(range(1, 2 * count, 2))
    finally:
        node.close()


def test_an_entry_that_was_given_and_is_not_held_is_found(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    """It was in an answer to an old connection, for instance."""
    node = make_node()
    node.put("held")
    wait_until(lambda: node.queue._in_flight.entries == 1)
    node.queue.pause()
    time.sleep(1.1)
    name = node.queue.counters()["node"]
    client.xadd(STREAM, {"n": 1, "s": "app", "d": '"lost"'}, id=LATER)
    client.hincrby("{daemonkit:app}:counts", "waiting", 1)
    client.xreadgroup("g", name, {STREAM: ">"})
    node.queue.resume()
    node.handle()

    wait_until(lambda: node.handled == ["held", "lost"])


def test_a_node_that_reads_under_a_buried_name_loses_nothing(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    node = make_node()
    node.put(1)
    node.put(2)
    wait_until(lambda: node.queue._in_flight.entries == 2)
    # Another one holds something, and has no heartbeat any more.
    node.queue.pause()
    time.sleep(1.1)
    client.xadd(STREAM, {"n": 1, "s": "app", "d": "3"}, id=LATER)
    client.xreadgroup("g", "buried:1:ffff", {STREAM: ">"})
    node.queue.resume()
    node.handle()

    wait_until(lambda: sorted(node.handled) == [1, 2, 3])
    consumers = client.xinfo_consumers(STREAM, "g")
    wait_until(
        lambda: (
            [c["name"] for c in client.xinfo_consumers(STREAM, "g") if c["name"] != RELEASED]
            == [node.queue.counters()["node"]]
        ),
        str(consumers),
    )


def test_a_node_that_lives_is_not_claimed(node: Node, engine: Engine) -> None:
    name = node.queue.counters()["node"].encode()
    link = node.queue._keeper._link
    node.queue.request_stop()
    node.queue._fetcher.join(10)

    assert link.run(CLAIM, name, b"0", "other", 100) is None


def test_a_queue_that_was_emptied_is_joined_again(node: Node, client: redis.Redis) -> None:
    node.put(1)
    client.flushall()
    node.handle()
    wait_until(lambda: client.hlen("{daemonkit:app}:nodes") == 1)
    node.put(2)
    wait_until(lambda: 2 in node.handled)


def test_others_handle_what_a_paused_node_holds(make_node: NodeMaker) -> None:
    paused = make_node()
    go_on = threading.Event()
    paused.put("in hand", "beside it")
    paused.put(*range(300))
    wait_until(lambda: paused.queue._in_flight.open == 302)
    paused.handle(lambda event: go_on.wait(TIMEOUT))
    wait_until(lambda: paused.queue.taken)
    paused.queue.pause()
    other = make_node()
    other.handle()
    wait_until(lambda: len(other.handled) == 300)
    go_on.set()
    # Once the one in hand is done, its neighbour is free, too.
    wait_until(lambda: len(other.handled) == 301)

    assert other.handled == [*range(300), "beside it"]
    assert paused.handled == ["in hand"]
    wait_until(lambda: not len(other.queue) and not paused.queue._in_flight.entries)
    assert (paused.queue._in_flight.open, paused.queue._in_flight.size) == (0, 0)
    assert paused.queue.taken == 1
    paused.queue.resume()
    paused.put("last")
    wait_until(lambda: "last" in paused.handled + other.handled)


@pytest.mark.parametrize("is_stopping", [False, True])
def test_a_node_that_hands_nothing_out_takes_nothing_over(
    make_node: NodeMaker, client: redis.Redis, is_stopping: bool
) -> None:
    node = make_node()
    node.handle()
    if is_stopping:
        node.queue.close()
    else:
        node.queue.pause()
    # At once, for the node's last read may still be under way.
    with client.pipeline() as together:
        together.xadd(STREAM, {"n": 1, "s": "app", "d": '"left"'}, id=LATER)
        together.hincrby("{daemonkit:app}:counts", "waiting", 1)
        together.xreadgroup("g", "buried:1:ffff", {STREAM: ">"})
        together.execute()
    beats = int(client.hvals("{daemonkit:app}:nodes")[0])
    wait_until(lambda: int(client.hvals("{daemonkit:app}:nodes")[0]) > beats + 3)

    consumers = {c["name"]: c["pending"] for c in client.xinfo_consumers(STREAM, "g")}
    assert consumers["buried:1:ffff"] == 1
    if not is_stopping:
        node.queue.resume()
        wait_until(lambda: node.handled == ["left"])


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
