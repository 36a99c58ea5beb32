from __future__ import annotations

import json
import os
import re
import time
from contextlib import closing
from functools import partial
from typing import Any

import pytest
import redis

from daemonkit.events.failed import Selection
from daemonkit.events.shared.editor import SharedEditor
from daemonkit.events.shared.engine import Link
from daemonkit.events.shared.fetcher import BLOCK, PREFETCH

from ...engines import Engine
from .conftest import Node, NodeMaker, failed, wait_until
from .proxy import DOWN, UP, Proxy
from .test_puts import proxy, quick, through

__all__ = ["proxy", "quick"]


@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_take_that_is_cut_anywhere_loses_nothing(
    engine: Engine, client: redis.Redis, proxy: Proxy, quick: None, direction: str
) -> None:
    node = Node(engine.address(), ack_batch=1)
    node.queue._fetcher._link = Link(through(proxy, node), BLOCK + 2)
    node.start()
    node.handle()
    editor = SharedEditor(engine.address())
    try:
        cuts = 0
        for count in range(280 if direction == UP else 160):
            proxy.cut_after(direction, count)
            editor.add([b"%d" % count])
            wait_until(partial(node.has_handled, count + 1))
            cuts += proxy.was_cut
            # More than one exchange has; the next one is cut anew.
            proxy.forget_cut()
        # The last positions are behind the end of most exchanges.
        assert cuts > 60
        # Not until its length is 0: the node hears of others' events only with a heartbeat.
        wait_until(lambda: not client.xlen("{daemonkit:app}:stream"))
        assert node.handled == list(range(count + 1))
    finally:
        editor.close()
        node.close()


def test_no_more_is_taken_than_a_node_may_hold(make_node: NodeMaker, client: redis.Redis) -> None:
    node, other = make_node(), make_node()
    for first in range(0, 4 * PREFETCH, 500):
        node.put(*range(first, first + 500))
    time.sleep(0.5)

    assert node.queue._in_flight.open <= PREFETCH + 500
    assert other.queue._in_flight.open <= PREFETCH + 500
    node.handle()
    other.handle()
    wait_until(lambda: len(node.handled) + len(other.handled) == 4 * PREFETCH)


def test_what_is_no_event_is_removed(
    node: Node, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.xadd("{daemonkit:app}:stream", {"x": "y"}, id="1-0")
    # With the number of an event, perhaps.
    client.xadd("{daemonkit:app}:stream", {"n": "1", "s": "app", "d": "1"}, id="1-1")
    client.xadd("{daemonkit:app}:stream", {"k": "17"})
    node.handle()
    node.put("real")
    wait_until(lambda: node.handled == ["real"])
    wait_until(lambda: client.xlen("{daemonkit:app}:stream") == 0)
    assert client.hget("{daemonkit:app}:counts", "waiting") == "0"
    assert re.findall("Removed the entry (.*), which is no event: ", caplog.text) == ["1-0", "1-1"]


def test_no_more_large_entries_are_taken_than_a_node_may_hold(
    make_node: NodeMaker, engine: Engine
) -> None:
    with closing(SharedEditor(f"{engine.address()}?name=app", create=True)) as editor:
        for _ in range(20):
            editor.add([b"1"] * 1000)
    node, other = make_node(), make_node()
    wait_until(lambda: other.queue._in_flight.open >= PREFETCH)
    wait_until(lambda: node.queue._in_flight.open >= PREFETCH)

    for each in (node, other):
        assert each.queue._in_flight.open <= 2 * PREFETCH
        each.handle()
    wait_until(lambda: len(node.handled) + len(other.handled) == 20_000)


def test_a_failed_event_that_a_newer_daemonkit_has_stored_is_retried(
    make_node: NodeMaker, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node()
    for number in range(2):
        node.put(number)
        entry = node.queue.get()
        assert node.queue.fail(entry, failed(entry, ValueError()), 60.0) is False
    node.queue.flush()
    newer, damaged = map(int, client.zrange("{daemonkit:app}:due", 0, -1))
    record = json.loads(client.hget("{daemonkit:app}:failed", newer))
    client.hset("{daemonkit:app}:failed", newer, json.dumps({**record, "added": 1}))
    client.hset("{daemonkit:app}:failed", damaged, '{"event": "the text"}')
    node.handle()
    node.queue.failed_events.retry(Selection(state="retrying"))
    wait_until(lambda: node.handled == [0])
    wait_until(lambda: client.hget("{daemonkit:app}:counts", "waiting") == "0")

    # In the log, at least.
    (text,) = re.findall("Removed the entry .*, which is no event: (.*)", caplog.text)
    assert text == """b'{"event": "the text"}'"""
    assert client.hlen("{daemonkit:app}:failed") == 0


def test_a_damaged_event_is_a_dead_letter(node: Node, client: redis.Redis) -> None:
    client.xadd("{daemonkit:app}:stream", {"n": 3, "s": "app", "d": '1\n{"damaged\n3'}, id="1-0")
    client.hincrby("{daemonkit:app}:counts", "waiting", 3)
    node.handle()
    wait_until(lambda: node.handled == [1, 3])
    wait_until(lambda: node.queue.counters()["dead_now"] == 1)
    found = node.queue.failed_events.find(1001)

    assert found is not None
    assert (found.event, found.error[:13]) == ('{"damaged', "InvalidEvent:")


def test_an_event_that_kills_its_process_is_a_dead_letter_after_the_third(
    engine: Engine, make_node: NodeMaker, client: redis.Redis
) -> None:
    """It is handled alone the second and the third time."""
    for life in range(3):
        if (pid := os.fork()) == 0:
            # In a process of its own, without pytest's threads.
            try:
                node = Node(engine.address()).start()
                if life == 0:
                    node.put(*range(10), "deadly", *range(10, 20))

                def handle(event: object) -> None:
                    client_here = engine.client()
                    client_here.rpush("calls", str(event))
                    if event == "deadly":
                        os._exit(1)

                node.handle(handle)
                time.sleep(60)
            finally:
                os._exit(2)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 1
    given_up: list[Any] = []
    node = make_node()
    node.queue.gave_up = lambda *given: given_up.append(given)
    node.handle()
    wait_until(lambda: node.queue.counters()["dead_now"] == 1)
    wait_until(lambda: not len(node.queue))
    wait_until(lambda: given_up)
    assert given_up[0][0] == "deadly"
    assert given_up[0][1].attempts == 3
    (dead,) = node.queue.failed_events.page(Selection(), None, 10, whole=True).events

    assert dead.event == '"deadly"'
    assert dead.error == ("ProcessKilled: the process ended 3 times while it handled this event")
    calls = client.lrange("calls", 0, -1)
    assert calls.count("deadly") == 3
    # Alone from the second time on, so those before it are handled twice at most.
    handled = [*calls, *map(str, node.handled)]
    assert all(1 <= handled.count(str(n)) <= 2 for n in range(20))
