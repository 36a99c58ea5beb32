from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from daemonkit import StartError, Unavailable
from daemonkit.events.shared import backlog, connector, put, puts
from daemonkit.events.shared.address import parse
from daemonkit.events.shared.engine import Engine as EngineLink
from daemonkit.events.shared.faults import EngineFaults

from ...engines import Engine, running_engine
from .conftest import Node, NodeMaker, batch, wait_until
from .proxy import DOWN, UP, Proxy


@pytest.fixture
def proxy(engine: Engine) -> Iterator[Proxy]:
    proxy = Proxy(engine.port)
    yield proxy
    proxy.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections are made again at once."""
    monkeypatch.setattr(connector, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(connector, "LONGEST_PAUSE", 0.001)


def through(proxy: Proxy, node: Node, login: str = "") -> EngineLink:
    """The engine, behind the proxy."""
    engine = node.queue._puts._connector._engine
    address = parse(f"redis://{login}127.0.0.1:{proxy.port}/0")
    behind = EngineLink(address, "app", "")
    behind.keys = engine.keys
    return behind


@pytest.mark.parametrize("replicas", [0, 1])
@pytest.mark.parametrize("direction", [UP, DOWN])
def test_a_put_that_is_cut_anywhere_is_stored_once(
    engine: Engine,
    client: redis.Redis,
    proxy: Proxy,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    direction: str,
    replicas: int,
) -> None:
    if replicas:
        # There is none, so all that waits for it is answered at once.
        monkeypatch.setattr(put, "REPLICAS_TIMEOUT", 0.001)
        monkeypatch.setattr(EngineFaults, "replicas", lambda *_: None)
    node = Node(engine.address(), replicas=replicas)
    node.queue._puts._connector._engine = through(proxy, node)
    node.queue.use_loop(node.loop)
    try:
        put_once(node, replicas)
        count, position = 1, 0
        while True:
            proxy.cut_after(direction, position)
            put_once(node, replicas)
            count += 1
            assert int(client.hget("{daemonkit:app}:counts", "waiting")) == count
            if not proxy.was_cut:
                break
            # The engine looks for what is over, such as a WAIT, ten times a second.
            position += 17 if replicas and direction == UP else 1
        assert client.xlen("{daemonkit:app}:stream") == count
        # As many as there are bytes.
        assert position > (500 if direction == UP else 5)
    finally:
        node.close()


def put_once(node: Node, replicas: int) -> None:
    if not replicas:
        node.put("x")
        return
    with pytest.raises(Unavailable, match="0 instead of 1 replicas"):
        node.put("x")


def test_a_delayed_engine_is_waited_for(engine: Engine, proxy: Proxy, make_node: NodeMaker) -> None:
    node = make_node(f"redis://127.0.0.1:{proxy.port}/0")
    node.handle()
    proxy.delay = 0.05
    for number in range(10):
        node.put(number)
    wait_until(lambda: node.handled == list(range(10)))


def test_a_stalled_connection_is_given_up_and_events_refused(
    engine: Engine, proxy: Proxy, make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(put, "CONFIRM_TIMEOUT", 0.5)
    node = make_node(f"redis://127.0.0.1:{proxy.port}/0")
    node.put(0)
    proxy.stalls = True
    began = time.monotonic()
    with pytest.raises(Unavailable, match="hasn't confirmed it"):
        node.put(1)
    assert 0.4 < time.monotonic() - began < 10
    proxy.stalls = False
    wait_until(lambda: not node.queue.outage)
    node.put(2)
    node.handle()
    wait_until(lambda: {0, 2} <= set(node.handled))


def test_events_that_wait_for_the_engine_are_bounded(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_UNSENT", 20)
    monkeypatch.setattr(puts, "GRACE", 60)
    node = Node(own_engine.address()).start()
    try:
        node.put(1)
        own_engine.kill()
        wait_until(lambda: node.queue.outage)
        outcomes: list[Any] = []
        for _ in range(3):
            node.queue.put_later(batch("12345678"), outcomes.append)
        (refusal,) = outcomes
        assert str(refusal) == "The event queue's engine is too slow"
        own_engine.start()
        wait_until(lambda: len(outcomes) == 3)
        assert outcomes[1:] == [None, None]
    finally:
        node.close()


def test_a_stop_refuses_what_waits(own_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puts, "GRACE", 60)
    node = Node(own_engine.address()).start()
    own_engine.kill()
    outcomes: list[Any] = []
    node.queue.put_later(batch(1), outcomes.append)
    node.close()

    assert [str(refusal) for refusal in outcomes] == ["The daemon is stopping"]
    node.queue.put_later(batch(1), outcomes.append)
    assert str(outcomes[1]) == "The daemon is stopping"


def test_puts_of_many_threads_are_all_stored(node: Node) -> None:
    def put_many(first: int) -> None:
        for number in range(first, first + 50):
            node.put(number)

    threads = [threading.Thread(target=put_many, args=(n * 50,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    node.handle()
    wait_until(lambda: len(node.handled) == 400)

    assert sorted(node.handled) == list(range(400))
    assert node.queue.counters()["received"] == 400


def test_replicas_that_are_too_few_refuse_an_event(make_node: NodeMaker, monkeypatch: Any) -> None:
    monkeypatch.setattr(put, "REPLICAS_TIMEOUT", 0.01)
    # One that is connected, but slow.
    monkeypatch.setattr(EngineFaults, "replicas", lambda *_: None)
    node = make_node(replicas=1)
    with pytest.raises(Unavailable, match=r"^0 instead of 1 replicas of the event queue's engine"):
        node.put(1)

    assert "confirm.replicas" in node.queue.problems()[0].text


def test_what_waits_for_replicas() -> None:
    assert put.Replicas().command() == ()
    assert put.Replicas(2).command() == ("WAIT", 2, 4000)
    assert put.Replicas(2, on_disk=True).command() == ("WAITAOF", 0, 2, 4000)
    assert (put.Replicas(2).confirmed(1), put.Replicas(2, on_disk=True).confirmed([0, 1])) == (1, 1)


def test_replicas_disks_need_a_newer_engine(engine: Engine, client: redis.Redis) -> None:
    if tuple(map(int, client.info()["redis_version"].split(".")))[:2] < (7, 2):
        with pytest.raises(StartError, match=r"confirm\.aof needs Redis 7\.2, or Valkey"):
            Node(engine.address(), replicas=1, on_disk=True)
        return
    node = Node(engine.address(), replicas=0, on_disk=True)
    node.close()


def test_without_the_replicas_that_must_confirm_nothing_is_stored(
    own_engine: Engine, tmp_path: Path
) -> None:
    node = Node(own_engine.address(), replicas=1).start()
    options = {"replicaof": f"127.0.0.1 {own_engine.port}"}
    try:
        text = "0 instead of 1 replicas are connected to the event queue's engine"
        assert text in node.queue.outage
        with pytest.raises(Unavailable, match=text):
            node.put(1)
        with own_engine.client() as client:
            client.config_set("repl-diskless-sync-delay", 0)
            assert client.xlen("{daemonkit:app}:stream") == 0
        with running_engine(tmp_path / "replica", **options):
            wait_until(lambda: not node.queue.problems())
            node.put(2)
    finally:
        node.close()
