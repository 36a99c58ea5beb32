from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import redis

from daemonkit.events.shared import puts, repairs

from ...engines import Engine
from .conftest import Node, wait_until
from .proxy import Proxy
from .test_puts import proxy, through

__all__ = ["proxy"]

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

    wait_until(
        lambda: f"had lost {count} events that it had confirmed; they were put" in caplog.text
    )
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

    # Only what came with the engine's last answer.
    assert stored(client) == ["2", "3"]


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


def test_a_repair_is_not_given_up_while_the_engine_refuses_it(
    putter: Node,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(repairs, "RETAIN", 0.1)
    putter.put(1)
    lose(client, 1, **{"min-replicas-to-write": "1"})
    wait_until(lambda: "NOREPLICAS" in putter.queue.outage)
    began = time.monotonic()
    # Longer than what is kept without a fault.
    wait_until(lambda: time.monotonic() > began + 0.5)
    assert "NOREPLICAS" in putter.queue.outage, "all the time"
    client.config_set("min-replicas-to-write", "0")
    wait_until(lambda: stored(client) == ["1"])
    wait_until(lambda: not putter.queue.outage)

    assert caplog.text.count("it had confirmed; they were put again") == 1
    assert caplog.text.count("is away") == 1


def test_an_idle_connection_is_tried_and_what_was_lost_behind_it_put_again(
    engine: Engine, client: redis.Redis, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a machine loses its power: nobody closes the connection."""
    monkeypatch.setattr(puts, "IDLE", 0.1)
    monkeypatch.setattr(puts, "PROBE_TIMEOUT", 0.3)
    monkeypatch.setattr(repairs, "RETAIN", 0.2)
    node = Node(engine.address(), timeout=60.0)
    node.queue._puts._connector._engine = through(proxy, node)
    node.queue.use_loop(node.loop)
    try:
        node.put(1)
        connection = wait_until(lambda: node.queue._puts._socket)
        proxy.stalls = True
        client.flushall()
        wait_until(lambda: node.queue._puts._socket is not connection)
        proxy.stalls = False
        wait_until(lambda: stored(client) == ["1"])
        wait_until(lambda: not node.queue.outage)
        # Once it is sure that the engine has it, nothing is kept.
        wait_until(lambda: not node.queue._puts._repairs._kept)
    finally:
        node.close()


def test_after_a_long_time_nothing_is_known(
    putter: Node, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine has forgotten the numbers itself."""
    putter.put(1)
    monkeypatch.setattr(repairs, "REMEMBERED", -1.0)
    lose(client, 1)
    putter.put(2)

    assert stored(client) == ["2"]
