from __future__ import annotations

import threading
import time

import pytest
import redis

from daemonkit.events.shared.engine import EngineAway, Link
from daemonkit.events.shared.layout import RELEASED, Script
from daemonkit.events.shared.scripts import CLAIM, RELEASE

from ...engines import Engine
from .conftest import TIMEOUT, Node, NodeMaker, wait_until

STREAM = "{daemonkit:app}:stream"
LATER = "9000000000000-0"
"""An id after those of puts; one of Redis's own could have the number of a put."""


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


def test_an_engine_that_has_dropped_the_queue_is_told_apart(
    node: Node, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    node.put("gone")
    wait_until(lambda: node.queue._in_flight.open == 1)
    client.flushall()
    wait_until(lambda: "The queue is gone from" in caplog.text)
    assert "1 events that this node held are not handled" in caplog.text
    assert "taken for dead" not in caplog.text
    node.handle()
    node.put("new")
    wait_until(lambda: node.handled == ["new"])


def test_dead_letters_that_are_dropped_are_told(
    make_node: NodeMaker, caplog: pytest.LogCaptureFixture
) -> None:
    node = make_node(dead_letters=3)
    node.put(*range(10))
    node.handle(lambda event: 1 / 0)
    wait_until(lambda: node.queue.counters()["discarded"] == 7)
    wait_until(lambda: "Too many dead letters: some are dropped: " in caplog.text)


def test_what_is_known_of_many_nodes_is_asked_for_now_and_then(
    node: Node, client: redis.Redis
) -> None:
    heartbeats = node.queue._keeper._heartbeats
    client.hset("{daemonkit:app}:nodes", mapping={f"other-{n}": 1 for n in range(49)})
    wait_until(lambda: heartbeats._full_every == 5)
    assert len(node.queue.counters()["nodes"]) == 50
    (own,) = [each for each in node.queue.counters()["nodes"] if "host" in each]
    beats = heartbeats.beats
    wait_until(lambda: heartbeats.beats > beats + 2)

    assert own["name"] == node.queue.counters()["node"]
    assert any("host" in each for each in node.queue.counters()["nodes"])


def test_what_a_dead_node_held_is_given_back_by_a_paused_one(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    paused, calling, go_on = make_node(), threading.Event(), threading.Event()
    paused.queue.pause()
    wait_until(lambda: not paused.queue._waiting.consumers)
    with client.pipeline() as together:
        for number in range(20):
            entry = {"n": 1, "s": "app", "d": str(number)}
            together.xadd(STREAM, entry, id=f"{1 + number}-0")
        together.hincrby("{daemonkit:app}:counts", "waiting", 20)
        together.xreadgroup("g", "buried:1:ffff", {STREAM: ">"})
        together.execute()

    def handle(event: int) -> None:
        calling.set()
        go_on.wait(TIMEOUT)

    paused.handle(handle)
    paused.queue.resume()
    assert calling.wait(TIMEOUT)
    paused.queue.pause()
    other = make_node()
    other.handle()
    try:
        wait_until(lambda: len(other.handled) == 19)
    finally:
        go_on.set()
    wait_until(lambda: not client.xlen(STREAM))

    assert (paused.handled, sorted(other.handled)) == ([0], list(range(1, 20)))
    wait_until(lambda: not paused.queue._in_flight.open and not paused.queue._fetcher.suspects)
    paused.queue.resume()
    paused.put("new")
    wait_until(lambda: "new" in paused.handled + other.handled)


def test_what_could_not_be_given_back_is_given_back_later(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused, other = make_node(), make_node()
    other.queue.pause()
    paused.put(*range(50))
    wait_until(lambda: paused.queue._in_flight.open == 50)
    heartbeats, failures = paused.queue._keeper._heartbeats, []

    class Failing(Link):
        def run(self, script: Script, *arguments: object) -> object:
            if script is RELEASE and not failures:
                failures.append(arguments)
                raise EngineAway("as asked")
            return super().run(script, *arguments)

    monkeypatch.setattr(paused.queue._keeper._link, "__class__", Failing)
    paused.queue.pause()
    wait_until(lambda: failures)
    other.queue.resume()
    other.handle()
    wait_until(lambda: len(other.handled) == 50)

    assert heartbeats.beats


def test_a_paused_node_without_others_keeps_what_it_holds(node: Node, client: redis.Redis) -> None:
    node.put(*range(50))
    wait_until(lambda: node.queue._in_flight.open == 50)
    node.queue.pause()
    beats = node.queue._keeper._heartbeats.beats
    wait_until(lambda: node.queue._keeper._heartbeats.beats > beats + 2)

    assert node.queue._in_flight.open == 50


def test_all_that_a_node_gave_back_is_taken_over_at_once(make_node: NodeMaker) -> None:
    leaving = make_node()
    for number in range(250):
        leaving.put(number)
    wait_until(lambda: leaving.queue._in_flight.entries == 250)
    other = make_node(timeout=10.0)
    other.queue.pause()
    leaving.close()
    heartbeats = other.queue._keeper._heartbeats
    beats = heartbeats.beats
    other.queue.resume()
    other.handle()
    wait_until(lambda: len(other.handled) == 250)

    assert other.handled == list(range(250))
    # One that was under way, and the next.
    assert heartbeats.beats <= beats + 2


def test_the_engine_is_not_away_while_an_event_is_handled_alone(own_engine: Engine) -> None:
    with own_engine.client(decode_responses=True) as client:
        node = Node(own_engine.address()).start()
        calls: list[int] = []
        go_on = [threading.Event(), threading.Event()]

        def handle(event: int) -> None:
            calls.append(event)
            go_on[event].wait(TIMEOUT)

        try:
            with client.pipeline() as together:
                together.xadd(STREAM, {"n": 2, "s": "app", "d": "0\n1"}, id=LATER)
                together.xreadgroup("g", "buried:1:ffff", {STREAM: ">"})
                together.execute()
            node.handle(handle)
            wait_until(lambda: calls == [0])
            # It begins with the next one on a connection that has ended.
            own_engine.restart()
            go_on[0].set()
            wait_until(lambda: calls == [0, 1])
            wait_until(lambda: not node.queue.outage)
            assert node.handled == [0]
        finally:
            for event in go_on:
                event.set()
            node.close()
