from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from daemonkit.events.shared import repairs

from ...engines import Engine
from .conftest import Node, wait_until

PUT = "{daemonkit:app}:put:"


@pytest.fixture
def putter(engine: Engine) -> Iterator[Node]:
    """A node that only puts."""
    node = Node(engine.address(), timeout=60.0)
    node.queue.use_loop(node.loop)
    yield node
    node.close()


def lose(client: redis.Redis, count: int, **settings: str) -> None:
    """Make the engine forget the last puts, as after a crash, change its settings, and cut its
    connections."""
    (key,) = client.keys(f"{PUT}*")
    number, _ = client.get(key).split(" ", 1)
    for entry, _ in client.xrevrange("{daemonkit:app}:stream", count=count):
        client.xdel("{daemonkit:app}:stream", entry)
    client.hincrby("{daemonkit:app}:counts", "waiting", -count)
    client.set(key, f"{int(number) - count} 1 0")
    for name, value in settings.items():
        client.config_set(name, value)
    cut(client)


def cut(client: redis.Redis) -> None:
    for other in client.client_list():
        if int(other["id"]) != client.client_id():
            client.client_kill_filter(_id=other["id"])


def stored(client: redis.Redis) -> list[str]:
    return [fields["d"] for _, fields in client.xrange("{daemonkit:app}:stream")]


@pytest.mark.parametrize("count", [1, 3])
def test_what_the_engine_has_lost_is_put_again(
    putter: Node, client: redis.Redis, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        putter.put(number)
    lose(client, count)
    assert len(stored(client)) == 5 - count
    client.script_flush()
    wait_until(lambda: stored(client) == ["0", "1", "2", "3", "4"])

    assert f"has lost {count} events that it had confirmed; they are put again" in caplog.text
    putter.put(5)
    assert stored(client) == ["0", "1", "2", "3", "4", "5"]
    assert client.hget("{daemonkit:app}:counts", "waiting") == "6"


def test_all_of_it_is_put_again_after_a_start_without_files(
    putter: Node, client: redis.Redis
) -> None:
    putter.put(1, 2, 3)
    putter.put(4)
    client.flushall()
    cut(client)
    wait_until(lambda: stored(client) == ["1\n2\n3", "4"])


def test_what_the_engine_has_is_not_put_again(putter: Node, client: redis.Redis) -> None:
    putter.put(1)
    cut(client)
    putter.put(2)
    cut(client)
    putter.put(3)

    assert stored(client) == ["1", "2", "3"]


def test_what_was_confirmed_long_before_is_not_kept(
    putter: Node, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "RETAIN", 0.0)
    putter.put(1)
    putter.put(2)
    lose(client, 2)
    putter.put(3)

    assert stored(client) == ["3"]


def test_what_is_kept_is_bounded(putter: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repairs, "MAX_SIZE", 100)
    for _ in range(10):
        putter.put("x" * 38)

    kept = putter.queue._puts._repairs
    assert (len(kept._kept), kept._size) == (2, 80)


def test_a_repair_without_memory_is_tried_again(putter: Node, client: redis.Redis) -> None:
    putter.put(1)
    lose(client, 1, maxmemory="1")
    wait_until(lambda: putter.queue.outage)
    client.config_set("maxmemory", "0")

    wait_until(lambda: stored(client) == ["1"])


def test_after_a_long_time_nothing_is_known(
    putter: Node, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has forgotten the numbers itself."""
    putter.put(1)
    monkeypatch.setattr(repairs, "REMEMBERED", -1.0)
    lose(client, 1)
    putter.put(2)

    assert stored(client) == ["2"]
