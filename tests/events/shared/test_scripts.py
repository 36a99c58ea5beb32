from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from daemonkit.events.shared import scripts
from daemonkit.events.shared.address import parse
from daemonkit.events.shared.engine import Engine as EngineLink
from daemonkit.events.shared.engine import EngineAway, Link

from ...engines import Engine

ONE = (1, 1, 1, "app", "", b'"x"')
"""A put of one event."""


@pytest.fixture
def link(engine: Engine) -> Iterator[Link]:
    link = Link(EngineLink(parse(engine.address()), "app", "me"))
    link.join("me", "{}")
    yield link
    link.close()


def put(link: Link, number: int, *units: tuple[object, ...], size: int = 100) -> bytes:
    answer: bytes = link.run(scripts.PUT, number, 60_000, size, *(a for u in units for a in u))
    return answer


def take(link: Link, node: str = "me") -> list[bytes]:
    answer = link.call(
        *("XREADGROUP", "GROUP", "g", node, "STREAMS", "{daemonkit:app}:stream", ">")
    )
    return [entry for entry, _ in answer[0][1]] if answer else []


def waiting(client: redis.Redis) -> int:
    return int(client.hget("{daemonkit:app}:counts", "waiting") or 0)


def test_a_put_that_is_sent_twice_is_stored_once(link: Link, client: redis.Redis) -> None:
    assert put(link, 1, ONE) == put(link, 1, ONE) == b"1 1"
    assert put(link, 2, ONE) == b"1 2"
    with pytest.raises(EngineAway, match="STALE"):
        put(link, 1, ONE)
    assert client.xlen("{daemonkit:app}:stream") == 2


def test_each_put_is_stored_whole_or_not_at_all(link: Link, client: redis.Redis) -> None:
    three = (2, 3, 2, "app", "", b"1\n2", 1, "app", '["a:1"]', b"3")

    assert put(link, 1, three, three, ONE, size=4) == b"101 4"
    assert client.xlen("{daemonkit:app}:stream") == 3


def test_ids_grow_even_if_the_clock_is_set_back(link: Link, client: redis.Redis) -> None:
    put(link, 1, ONE)
    ahead = int(client.hget("{daemonkit:app}:counts", "last")) + 10**9
    client.hset("{daemonkit:app}:counts", "last", ahead)
    put(link, 2, ONE)
    put(link, 3, ONE)
    ids = [entry.split("-")[0] for entry, _ in client.xrange("{daemonkit:app}:stream")]

    assert ids[1:] == [str(ahead + 1), str(ahead + 2)]
    assert int(ids[2]) * 1000 < 2**53, "exact in JavaScript"


def test_results_of_several_nodes_add_up(link: Link, client: redis.Redis) -> None:
    put(link, 1, (1, 4, 4, "app", "", b"1\n2\n3\n4"))
    (entry,) = take(link)

    assert link.run(scripts.SETTLE, entry, 4, b"1000", b"") == 3
    assert link.run(scripts.SETTLE, entry, 4, b"1000", b"") == 3, "it may arrive twice"
    assert link.run(scripts.SETTLE, entry, 4, b"0110", b"") == 1
    assert client.hget("{daemonkit:app}:handled", entry) == "1110"
    assert link.run(scripts.SETTLE, entry, 4, b"1001", b"") == 0
    assert client.xlen("{daemonkit:app}:stream") == 0
    assert link.run(scripts.SETTLE, entry, 4, b"", b"") == 0
    assert link.run(scripts.SETTLE, entry, 4, b"1000", b"") == 0
    assert client.hlen("{daemonkit:app}:handled") == 0


def test_only_the_owner_decides_about_a_failure(link: Link, client: redis.Redis) -> None:
    put(link, 1, ONE)
    (entry,) = take(link)
    failure = (entry, 0, 1, 77, 1, "{}", "", 10)

    assert link.run(scripts.FAIL, "other", *failure) == -1
    assert link.run(scripts.FAIL, "me", *failure) == 0
    assert link.run(scripts.FAIL, "me", *failure) == -1, "it may arrive twice"
    assert client.hget("{daemonkit:app}:counts", "dead") == "1"
    assert waiting(client) == 0


def test_a_retry_comes_when_it_is_due(link: Link, client: redis.Redis) -> None:
    put(link, 1, ONE)
    (entry,) = take(link)
    link.run(scripts.FAIL, "me", entry, 0, 1, 77, 1, "{}", 60_000, 10)

    assert 50_000 < link.run(scripts.DUE) <= 60_000
    assert take(link) == []
    assert link.run(scripts.RETRY, 77, 78) == [b"77"]
    assert link.run(scripts.DUE) == -1
    (again,) = take(link)
    assert client.hgetall("{daemonkit:app}:queued") == {"77": again.decode()}
    assert waiting(client) == 1
    link.run(scripts.SETTLE, again, 1, b"", b"77")
    assert waiting(client) == 0
    assert set(client.keys()) == {
        f"{{daemonkit:app}}:{key}"
        for key in ("counts", "nodes", "about", "layout", "stream", "put:me")
    }


@pytest.mark.parametrize("state", ["dead", "due", "queued", "waiting"])
def test_an_event_can_be_dropped_in_each_state(link: Link, client: redis.Redis, state: str) -> None:
    put(link, 1, (1, 2, 2, "app", "", b"1\n2"))
    ((entry, _),) = client.xrange("{daemonkit:app}:stream")
    event = int(entry.split("-")[0]) * 1000 + 1
    if state != "waiting":
        take(link)
        delay = {"dead": "", "due": 60_000, "queued": 0}[state]
        link.run(scripts.FAIL, "me", entry, 1, 2, event, 1, "{}", delay, 10)
        link.run(scripts.DUE)
        assert link.run(scripts.DROP, 1, event + 1) == []
    else:
        assert link.run(scripts.DROP, 1, event) == [], "only failed ones"
    assert link.run(scripts.DROP, 0, event) == [str(event).encode()]
    assert link.run(scripts.DROP, 0, event, event + 1, 5) == []

    assert waiting(client) == 1
    assert client.hlen("{daemonkit:app}:failed") == 0
    assert link.run(scripts.DROP, 0, event - 1) == [str(event - 1).encode()]
    assert (waiting(client), client.xlen("{daemonkit:app}:stream")) == (0, 0)


def test_a_claim_has_a_limit_and_marks_what_it_takes(link: Link, client: redis.Redis) -> None:
    for number in range(1, 4):
        put(link, number, (1, 2, 2, "app", "", b"1\n2"))
    take(link, "dead")
    link.join("dead", "{}")
    assert link.run(scripts.CLAIM, "dead", "7", "me", 100) is None, "its counter has moved"
    assert link.run(scripts.CLAIM, "dead", "1", "me", 0) == []
    assert client.hkeys("{daemonkit:app}:nodes") == ["me"]
    claimed = link.run(scripts.CLAIM, "dead", "", "me", 3)

    assert [(len(fields), bits, mark) for _, fields, bits, mark in claimed] == [
        (6, b"", b"-1 0")
    ] * 2
    assert len(link.run(scripts.CLAIM, "dead", "", "me", 3)) == 1
    assert link.run(scripts.CLAIM, "dead", "", "me", 3) == []
    (consumer,) = client.xinfo_consumers("{daemonkit:app}:stream", "g")
    assert (consumer["name"], consumer["pending"]) == ("me", 3)


def test_how_often_an_event_was_handled_alone_is_counted(link: Link) -> None:
    put(link, 1, (1, 2, 2, "app", "", b"1\n2"))
    (entry,) = take(link)

    assert link.run(scripts.BEGIN, "other", entry, 0) == 0
    assert [link.run(scripts.BEGIN, "me", entry, n) for n in (0, 0, 1, 1)] == [1, 2, 1, 2]


def test_what_a_node_gives_back_is_not_suspected(link: Link, client: redis.Redis) -> None:
    put(link, 1, ONE)
    (entry,) = take(link)
    assert link.run(scripts.LEAVE, "me") == 1
    assert client.hlen("{daemonkit:app}:nodes") == 0
    ((claimed, _, _, mark),) = link.run(scripts.CLAIM, "released", "", "next", 10)

    assert (claimed, mark) == (entry, b"")
    pending = client.xpending_range("{daemonkit:app}:stream", "g", "-", "+", 10)
    assert [p["consumer"] for p in pending] == ["next"]


def test_a_heartbeat_tells_how_the_queue_is(link: Link, client: redis.Redis) -> None:
    put(link, 1, ONE)
    counters, about, consumers, due, oldest, counts, retrying, dead = link.run(
        scripts.BEAT, "me", '{"a": 1}', 1
    )

    assert (counters, about, consumers) == ([b"me", b"2"], [b"me", b'{"a": 1}'], [])
    assert (due, counts, retrying, dead) == (-1, [b"1", None, None, None], 0, 0)
    assert 0 <= oldest < 600_000
    assert link.run(scripts.BEAT, "buried", "{}", 0) is None
    assert client.hkeys("{daemonkit:app}:nodes") == ["me"]
    client.xgroup_createconsumer("{daemonkit:app}:stream", "g", "idle")
    client.xreadgroup("g", "me", {"{daemonkit:app}:stream": ">"})
    told = [link.run(scripts.BEAT, "me", "{}", is_whole)[:3] for is_whole in (0, 1)]
    assert told == [
        [[b"me", b"3"], [], [b"me", 1]],
        [[b"me", b"4"], [b"me", b"{}"], [b"idle", 0, b"me", 1]],
    ]
