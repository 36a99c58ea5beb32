from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from redis import exceptions
from redis.crc import key_slot

from daemonkit import StartError
from daemonkit.events.shared.address import parse
from daemonkit.events.shared.engine import (
    Engine as EngineLink,
)
from daemonkit.events.shared.engine import (
    EngineAway,
    EngineRefuses,
    Link,
    socket_of,
    translated,
)
from daemonkit.events.shared.scripts import DUE, JOIN

from ...engines import Engine, free_port, running_engine
from .conftest import Node, wait_until


@pytest.fixture
def link(engine: Engine) -> Iterator[Link]:
    link = Link(EngineLink(parse(engine.address()), "app", "me"))
    yield link
    link.close()


@pytest.mark.parametrize(
    ("error", "text", "code"),
    [
        (OSError("no route"), "no route", ""),
        (exceptions.TimeoutError(""), "TimeoutError", ""),
        (
            exceptions.ConnectionError("Error 111 connecting to h:1. Connection refused."),
            "Connection refused",
            "",
        ),
        (
            exceptions.ConnectionError(
                "Error while reading from 127.0.0.1:1 : (104, 'Connection reset by peer')"
            ),
            "Connection reset by peer",
            "",
        ),
        (exceptions.BusyLoadingError("loading"), "loading", ""),
        (exceptions.ResponseError("NOGROUP no such"), "NOGROUP no such", "NOGROUP"),
        (exceptions.ReadOnlyError("of a replica"), "READONLY of a replica", "READONLY"),
        (exceptions.NoScriptError("none"), "NOSCRIPT none", "NOSCRIPT"),
        (exceptions.OutOfMemoryError("full"), "OOM full", "OOM"),
    ],
)
def test_what_an_error_means(error: Exception, text: str, code: str) -> None:
    found = translated(error)

    assert (type(found), str(found), found.code) == (EngineAway, text, code)


@pytest.mark.parametrize(
    "error",
    [
        exceptions.AuthenticationError("invalid"),
        exceptions.NoPermissionError("no"),
        exceptions.ResponseError("DB index is out of range"),
    ],
)
def test_what_is_refused_for_good(error: Exception) -> None:
    assert isinstance(translated(error), EngineRefuses)


def test_a_connection_is_made_when_needed_and_used_again(link: Link, client: redis.Redis) -> None:
    assert link.call("PING") == b"PONG"
    first = link.call("CLIENT", "ID")
    assert link.call("CLIENT", "ID") == first
    link.close()
    assert link.call("CLIENT", "ID") > first


def test_a_script_is_loaded_when_it_is_missing(link: Link, client: redis.Redis) -> None:
    client.script_flush()
    assert link.run(DUE) == -1
    assert client.script_exists(DUE.sha) == [True]
    assert link.run(DUE) == -1


def test_after_an_error_of_its_use_a_connection_can_be_used(link: Link) -> None:
    first = link.call("CLIENT", "ID")
    with pytest.raises(EngineAway) as raised:
        link.call("XREADGROUP", "GROUP", "g", "me", "STREAMS", "nothing", ">")
    assert raised.value.code == "NOGROUP"
    assert link.call("CLIENT", "ID") == first


def test_after_any_other_error_there_is_a_new_connection(link: Link, client: redis.Redis) -> None:
    first = link.call("CLIENT", "ID")
    client.client_kill_filter(_id=str(first))
    with pytest.raises(EngineAway):
        link.call("PING")
    assert link.call("CLIENT", "ID") != first


def test_a_call_can_be_interrupted(link: Link) -> None:
    link.call("PING")
    link.interrupt()
    with pytest.raises(EngineAway):
        link.call("BLPOP", "nothing", 100)


def test_a_node_joins_the_queue_and_makes_it(link: Link, client: redis.Redis) -> None:
    link.join("one", "{}")
    link.join("two", "{}")

    assert client.hgetall("{daemonkit:app}:nodes") == {"one": "1", "two": "1"}
    assert client.get("{daemonkit:app}:layout") == "1"
    client.set("{daemonkit:app}:layout", 2)
    with pytest.raises(StartError, match="layout 2"):
        link.join("three", "{}")
    assert client.hlen("{daemonkit:app}:nodes") == 2


def test_a_key_of_another_kind_is_an_error(link: Link, client: redis.Redis) -> None:
    client.set("{daemonkit:app}:stream", "not a stream")
    with pytest.raises(EngineAway, match="WRONGTYPE"):
        link.join("one", "{}")


def test_the_socket_of_a_connection(engine: Engine) -> None:
    connection = EngineLink(parse(engine.address()), "app", "me").connect()
    sock = socket_of(connection)
    assert sock is not None
    assert sock.getpeername()[1] == engine.port
    connection.disconnect()
    assert socket_of(connection) is None
    assert JOIN.text.startswith("#!lua flags=allow-oom\n")


def test_a_cluster_s_node_that_has_the_queue_is_found(tmp_path: Path) -> None:
    key = "{daemonkit:app}:stream"
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(
                running_engine(
                    tmp_path / name,
                    cluster_enabled="yes",
                    cluster_port=str(free_port()),
                    cluster_config_file="nodes.conf",
                )
            )
            for name in "ab"
        ]
        clients = [stack.enter_context(node.client()) for node in nodes]
        for client, slots in zip(clients, ((0, 8191), (8192, 16383)), strict=True):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        port, bus = nodes[1].port, nodes[1].options["cluster_port"]
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        for client in clients:
            wait_until(lambda c=client: c.cluster("INFO")["cluster_state"] == "ok")
        has_it = key_slot(key.encode()) > 8191
        for entry in nodes:
            node = stack.enter_context(closing(Node(entry.address()).start()))
            node.put("x")
            node.handle()
            wait_until(lambda n=node: n.handled == ["x"])
            node.close()

        assert clients[has_it].exists(key)
