from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from daemonkit import BatchTooLarge, QueueFull, StartError, Unavailable
from daemonkit.events.failed import Selection
from daemonkit.events.shared import node as node_module
from daemonkit.events.shared import put, puts
from daemonkit.events.shared.editor import SharedEditor
from daemonkit.events.shared.faults import PUTS, EngineFaults
from daemonkit.types import Origin

from ...engines import Engine, running_engine
from .conftest import Node, NodeMaker, batch, wait_until
from .proxy import DOWN, Proxy
from .test_puts import proxy, quick, through

__all__ = ["proxy", "quick"]

SCALE = Path(__file__).parents[3] / "docs/scale.md"


def counts(client: redis.Redis) -> dict[str, int]:
    """The counts in the engine."""
    return {key: int(value) for key, value in client.hgetall("{daemonkit:app}:counts").items()}


def test_an_event_is_handled_by_any_node_and_once(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    nodes = [make_node() for _ in range(3)]
    for number in range(300):
        nodes[number % 3].put({"n": number})
    for node in nodes:
        node.handle()
    wait_until(lambda: sum(len(node.handled) for node in nodes) == 300)
    wait_until(lambda: counts(client)["waiting"] == 0)

    assert sorted(e["n"] for node in nodes for e in node.handled) == list(range(300))
    assert client.xlen("{daemonkit:app}:stream") == 0
    assert client.hlen("{daemonkit:app}:handled") == 0


def test_all_keys_are_in_one_slot_and_few_are_left(node: Node, client: redis.Redis) -> None:
    node.handle(lambda event: 1 / event)
    node.put(0, 1)
    wait_until(lambda: node.queue.counters()["dead_now"] == 1 and node.handled == [1])

    keys = client.keys("*")
    assert all(key.startswith("{daemonkit:app}:") for key in keys)
    assert len({key_slot(key.encode()) for key in keys}) == 1


@pytest.mark.parametrize("count", [1, 999, 1000, 1001, 2500])
def test_the_events_of_a_batch_stay_in_order(node: Node, count: int) -> None:
    node.put(*range(count))
    node.handle()
    wait_until(lambda: len(node.handled) == count)

    assert node.handled == list(range(count))


def test_what_the_handler_is_told_survives_the_engine(make_node: NodeMaker) -> None:
    node = make_node()
    node.queue.with_meta = True
    before = time.time()
    origins = [Origin("1.2.3.4:5", "shop"), Origin("a:1")]
    node.queue.put_many(batch("ä\ud800", {"b": [1]})._replace(source="udp", origins=origins))
    first, second = node.queue.get(), node.queue.get()

    assert (first.event, second.event) == ("ä\ud800", {"b": [1]})
    assert (first.meta.source, first.meta.peer, first.meta.sender) == ("udp", "1.2.3.4:5", "shop")
    assert (second.meta.peer, second.meta.sender, second.meta.attempt) == ("a:1", None, 1)
    assert before - 1 < first.meta.received.timestamp() < time.time() + 1
    assert second.id == first.id + 1


def test_the_bound_counts_all_nodes(make_node: NodeMaker) -> None:
    one, other = make_node(size=10), make_node(size=10)
    one.put(*range(6))
    with pytest.raises(QueueFull, match=r"^The event queue is full \(10 events\)$"):
        other.put(*range(5))
    other.put(*range(4))
    with pytest.raises(BatchTooLarge, match="more than the queue holds"):
        one.put(*range(11))

    assert len(one.queue) in (6, 10)
    assert one.queue.put_some(batch(1, 2))[0] == 0
    for node in (one, other):
        node.handle()
    wait_until(lambda: len(one.handled) + len(other.handled) == 10)
    wait_until(lambda: not len(other.queue))
    one.put(*range(10))


def test_puts_that_find_no_room_together_are_put_apart(make_node: NodeMaker) -> None:
    node = make_node(size=10)
    outcomes: dict[str, Any] = {}

    def put_all() -> None:
        for name, count in (("first", 1), ("large", 10), ("small", 2), ("rest", 7)):
            node.queue.put_later(batch(*range(count)), lambda r, n=name: outcomes.update({n: r}))

    node.loop.call(put_all)
    wait_until(lambda: len(outcomes) == 4)

    assert {name: type(refusal) for name, refusal in outcomes.items()} == {
        "first": type(None),
        "large": QueueFull,
        "small": type(None),
        "rest": type(None),
    }


def test_a_failed_event_is_retried_by_the_engines_clock_and_keeps_its_id(
    make_node: NodeMaker,
) -> None:
    nodes = [make_node(), make_node()]
    calls: list[float] = []

    def handle(event: Any) -> None:
        calls.append(time.monotonic())
        if len(calls) == 1:
            raise ValueError("at first")

    for node in nodes:
        node.handle(handle)
    nodes[0].put("x")
    wait_until(lambda: nodes[0].handled + nodes[1].handled)

    assert calls[1] - calls[0] >= 0.05
    wait_until(lambda: nodes[0].queue.counters()["retried"] == 1)
    assert nodes[0].queue.counters()["retrying"] == 0


def test_dead_letters_are_bounded_and_the_oldest_discarded(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    node = make_node(dead_letters=3)
    node.handle(lambda event: 1 / 0)
    node.put(*range(5))
    wait_until(lambda: node.queue.counters()["discarded"] == 2)
    counters = node.queue.counters()

    assert (counters["dead"], counters["dead_now"], counters["waiting"]) == (5, 3, 0)
    assert client.hlen("{daemonkit:app}:failed") == client.hlen("{daemonkit:app}:attempts") == 3


def test_a_node_that_stops_gives_back_what_it_holds(
    make_node: NodeMaker, client: redis.Redis
) -> None:
    one = make_node()
    one.put(*range(50))
    entry = one.queue.get()
    one.queue.done([entry])
    one.close()
    other = make_node()
    other.handle()
    wait_until(lambda: len(other.handled) == 49)

    assert other.handled == list(range(1, 50))
    assert not client.hgetall("{daemonkit:app}:suspects")
    assert client.hlen("{daemonkit:app}:nodes") == 1


def test_the_nodes_and_what_they_hold_are_shown(make_node: NodeMaker) -> None:
    one, other = make_node(), make_node()
    one.put(*range(7))
    wait_until(lambda: {n["held"] for n in one.queue.counters()["nodes"]} == {0, 7})
    counters = one.queue.counters()

    assert {n["name"] for n in counters["nodes"]} == {
        one.queue.counters()["node"],
        other.queue.counters()["node"],
    }
    assert all(n["pid"] == os.getpid() and n["age"] < 20 for n in counters["nodes"])
    assert counters["engine"]["appendfsync"] == "everysec"
    assert counters["waiting"] == 7
    assert 0 <= wait_until(lambda: one.queue.counters()["oldest_age"]) < 20


def test_the_events_of_a_dead_node_are_taken_over_and_handled_alone(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    dead, other = make_node(), make_node()
    dead.put(*range(20))
    wait_until(lambda: dead.queue._in_flight.open + other.queue._in_flight.open == 20)
    holder, heir = (dead, other) if dead.queue._in_flight.open else (other, dead)
    # It is there, but its heart stands still.
    monkeypatch.setattr(holder.queue._keeper, "_tend", lambda: time.sleep(0.01))
    in_work = [0]
    most = [0]

    def handle(event: Any) -> None:
        in_work[0] += 1
        most[0] = max(most[0], in_work[0])
        time.sleep(0.002)
        in_work[0] -= 1

    for _ in range(3):
        heir.handle(handle)
    wait_until(lambda: len(heir.handled) == 20)

    assert most == [1]
    wait_until(lambda: not client.hgetall("{daemonkit:app}:suspects"))
    heir.put(*range(100, 110))
    wait_until(lambda: len(heir.handled) == 30)
    monkeypatch.undo()


def test_a_node_that_was_taken_for_dead_begins_anew(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = make_node()
    one.put("a", "b")
    taken = one.queue.get()
    name = one.queue.counters()["node"]
    tend = one.queue._keeper._tend
    monkeypatch.setattr(one.queue._keeper, "_tend", lambda: time.sleep(0.01))
    other = make_node()
    other.handle()
    wait_until(lambda: len(other.handled) == 2)
    handed: list[Any] = []
    waiting = threading.Thread(target=lambda: handed.append(one.queue.get()))
    waiting.start()
    monkeypatch.setattr(one.queue._keeper, "_tend", tend)
    wait_until(lambda: one.queue.counters()["node"] != name)
    one.queue.done([taken])
    assert not handed, "what others handle"
    other.close()
    one.put("c")
    waiting.join(20)

    assert handed[0].event == "c"
    assert "was taken for dead, since its heartbeats had stopped" in caplog.text
    one.queue.done(handed)
    wait_until(lambda: not len(one.queue))


def test_of_a_batch_that_lingers_only_what_others_have_is_left_out(
    make_node: NodeMaker, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node()
    monkeypatch.setattr(node.queue._keeper._heartbeats, "_take_over", lambda *_: None)
    node.put("abandoned")
    batches: list[list[Any]] = []
    lingering = threading.Thread(target=lambda: batches.append(node.queue.get_batch(3, 60.0)))
    lingering.start()
    wait_until(lambda: node.queue.taken == 1)
    # It was taken for dead.
    client.delete("{daemonkit:app}:nodes")
    wait_until(lambda: not node.queue._in_flight.entries)
    for number in range(3):
        node.put(number)
    lingering.join(20)

    # The first one may have come under the node's old name.
    assert [entry.event for entry in batches[0]] in ([0, 1], [1, 2])
    assert node.queue.taken == 2


def test_a_flush_waits_for_the_results_that_there_are(node: Node) -> None:
    node.put(*range(1000))
    entries = [node.queue.get() for _ in range(1000)]

    def report() -> None:
        for entry in entries:
            node.queue.done([entry])
            time.sleep(0.003)

    reporting = threading.Thread(target=report)
    reporting.start()
    wait_until(lambda: node.queue._in_flight.unsaved)

    assert node.queue.flush()
    assert reporting.is_alive(), "not for those that come later"
    reporting.join()


def test_what_was_put_early_waits_for_room(make_node: NodeMaker, engine: Engine) -> None:
    other = make_node(size=2)
    other.put("a", "b")
    node = Node(engine.address(), size=2)
    with pytest.raises(BatchTooLarge):
        node.queue.put_early(batch(1, 2, 3))
    node.queue.put_early(batch("early"))
    node.start()
    try:
        beats = node.queue._keeper._heartbeats.beats
        wait_until(lambda: node.queue._keeper._heartbeats.beats > beats + 2)
        assert node.queue.lost_at_exit() == 1
        other.handle()
        wait_until(lambda: "early" in other.handled)
        assert node.queue.lost_at_exit() == 0
    finally:
        node.close()


def test_what_was_put_early_is_stored_once_without_replicas(
    engine: Engine, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(put, "REPLICAS_TIMEOUT", 0.01)
    monkeypatch.setattr(EngineFaults, "replicas", lambda *_: None)
    node = Node(engine.address(), replicas=1)
    node.queue.put_early(batch("early"))
    node.queue.use_loop(node.loop)
    node.queue._keeper.start()
    try:
        wait_until(lambda: node.queue.lost_at_exit() == 0)
        beats = node.queue._keeper._heartbeats.beats
        wait_until(lambda: node.queue._keeper._heartbeats.beats > beats + 2)
        assert client.xlen("{daemonkit:app}:stream") == 1
    finally:
        node.close()


def test_nothing_is_handed_out_while_heartbeats_are_overdue(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(timeout=60.0)
    node.put(*range(10))
    assert node.queue.get().event == 0
    node.queue._node.fresh_until = 0.0
    handed: list[Any] = []
    waiting = threading.Thread(target=lambda: handed.append(node.queue.get()))
    waiting.start()
    time.sleep(0.3)
    assert not handed
    node.queue._node.fresh_until = node_module.awake() + 60
    waiting.join(20)

    assert handed[0].event == 1


def test_an_event_is_not_forgotten_when_heartbeats_come_and_go(
    make_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = make_node(timeout=60.0)
    node.put("x")
    wait_until(lambda: node.queue._in_flight.open == 1)
    answers = iter([False, True, False, True, True])
    monkeypatch.setattr(
        type(node.queue._node), "is_fresh", property(lambda self: next(answers, True))
    )

    assert node.queue.get().event == "x"


def test_a_pause_leaves_events_to_other_nodes(make_node: NodeMaker) -> None:
    paused, other = make_node(), make_node()
    paused.handle()
    paused.queue.pause()
    wait_until(lambda: paused.queue.is_paused)
    time.sleep(1.1)
    other.handle()
    for number in range(20):
        other.put(number)
    wait_until(lambda: len(other.handled) == 20)
    other.close()
    paused.put("later")
    assert paused.handled == []
    paused.queue.resume()
    wait_until(lambda: paused.handled == ["later"])


# The engine away


def test_a_daemon_starts_without_its_engine_and_serves_once_it_is_there(own_engine: Engine) -> None:
    own_engine.kill()
    node = Node(own_engine.address())
    try:
        (problem,) = node.queue.problems()
        assert problem.text.endswith("is away: Connection refused")
        node.queue.put_early(batch("early"))
        assert node.queue.lost_at_exit() == 1
        node.start()
        wait_until(lambda: node.queue._faults.away_for(PUTS) > puts.GRACE)
        with pytest.raises(Unavailable, match="is away: Connection refused"):
            node.put(1)
        assert "is away" in node.queue.outage
        own_engine.start()
        began = time.monotonic()
        wait_until(lambda: not node.queue.outage)
        node.put(1)
        took = time.monotonic() - began
        node.handle()
        wait_until(lambda: sorted(map(str, node.handled)) == ["1", "early"])

        assert took < 20
        assert node.queue.problems() == []
        wait_until(lambda: node.queue.lost_at_exit() == 0)
    finally:
        node.close()


def test_results_are_saved_once_the_engine_is_there_again(own_engine: Engine) -> None:
    node = Node(own_engine.address()).start()
    try:
        node.put(*range(300))
        wait_until(lambda: node.queue._in_flight.open == 300)
        own_engine.kill()
        node.handle()
        # What it holds, although nothing can be saved.
        wait_until(lambda: len(node.handled) == 300)
        own_engine.start()
        wait_until(lambda: not node.queue._in_flight.unsaved)
        wait_until(lambda: not len(node.queue))
        with own_engine.client() as client:
            assert client.xlen("{daemonkit:app}:stream") == 0
    finally:
        node.close()


def test_a_stop_without_the_engine_does_not_hang(
    own_engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    node = Node(own_engine.address()).start()
    node.put(1, 2)
    entry = node.queue.get()
    own_engine.kill()
    node.queue.done([entry])
    began = time.monotonic()
    node.close()

    assert time.monotonic() - began < 15
    assert "1 results of handled events could not be saved" in caplog.text


def test_an_engine_that_stands_still_is_waited_for_no_longer_than_that(own_engine: Engine) -> None:
    node = Node(own_engine.address()).start()
    try:
        node.put(1)
        own_engine.send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable, match="hasn't confirmed it within 5 s|is away"):
            node.put(2)
        own_engine.send_signal(signal.SIGCONT)
        wait_until(lambda: not node.queue.outage)
        node.put(3)
        node.handle()
        wait_until(lambda: {1, 3} <= set(node.handled))
    finally:
        own_engine.send_signal(signal.SIGCONT)
        node.close()


def test_a_lost_script_is_sent_again(node: Node, client: redis.Redis) -> None:
    node.handle()
    for number in range(5):
        node.put(number)
        client.script_flush()
    wait_until(lambda: node.handled == list(range(5)))


def test_killed_connections_are_made_again(node: Node, client: redis.Redis) -> None:
    node.handle()
    for number in range(20):
        node.put(number)
        for other in client.client_list():
            if int(other["id"]) != client.client_id():
                client.client_kill_filter(_id=other["id"])
    wait_until(lambda: len(node.handled) >= 20 and not len(node.queue))

    # What was in an answer that got lost comes later.
    assert sorted(node.handled) == list(range(20))


def test_a_paused_engine_delays_and_loses_nothing(node: Node, client: redis.Redis) -> None:
    node.handle()
    client.client_pause(500)
    node.put("a")
    client.bgrewriteaof()
    node.put("b")
    wait_until(lambda: node.handled == ["a", "b"])


def test_a_full_engine_refuses_and_lets_settle(
    node: Node, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    node.put(*range(10))
    client.config_set("maxmemory", "1")
    with pytest.raises(QueueFull, match=r"^The memory of the event queue's engine .* is full"):
        node.put("x")
    assert "is full (maxmemory)" in node.queue.problems()[0].text
    node.handle()
    wait_until(lambda: node.handled == list(range(10)))
    wait_until(lambda: counts(client)["waiting"] == 0)
    name = node.queue.counters()["node"]
    beats = int(client.hget("{daemonkit:app}:nodes", name))
    wait_until(lambda: int(client.hget("{daemonkit:app}:nodes", name)) > beats)
    client.config_set("maxmemory", "0")
    node.put("y")

    assert node.queue.problems() == []


# The start


def test_a_refused_login_ends_the_start(engine: Engine) -> None:
    with pytest.raises(StartError, match=r"refuses: ") as raised:
        Node(engine.address().replace("//", "//user:pass-word@"))

    assert "pass-word" not in str(raised.value)


def test_a_password_is_used_and_not_shown(tmp_path: Path) -> None:
    with running_engine(tmp_path, requirepass="s3cr3t") as engine:  # type: ignore[arg-type]
        node = Node(engine.address().replace("//", "//:s3cr3t@")).start()
        try:
            node.put(1)
            assert node.queue.get().event == 1
            assert "s3cr3t" not in str(node.queue.counters())
        finally:
            node.close()


def test_a_newer_layout_ends_the_start(engine: Engine, client: redis.Redis) -> None:
    client.set("{daemonkit:app}:layout", 99)
    with pytest.raises(StartError, match="has layout 99, made by a newer daemonkit"):
        Node(engine.address())


def test_a_database_that_does_not_exist_ends_the_start(engine: Engine) -> None:
    with pytest.raises(StartError, match="DB index is out of range"):
        Node(engine.address(database=99))


def test_a_queue_that_was_not_started_leaves(engine: Engine, client: redis.Redis) -> None:
    node = Node(engine.address())
    assert client.hlen("{daemonkit:app}:nodes") == 1
    node.close()

    assert client.hlen("{daemonkit:app}:nodes") == 0


@pytest.mark.parametrize("thread", ["loop", "child"])
def test_a_put_that_could_not_end_is_refused(node: Node, thread: str) -> None:
    def put() -> str:
        try:
            node.put(1)
        except Unavailable as error:
            return str(error)
        return ""

    if thread == "loop":
        assert "is the one that puts" in node.loop.call(put)
        return
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(write, put().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    text = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)
    assert text == "A forked child can't put events on a shared queue"


def test_the_documented_rights_are_enough(
    engine: Engine, client: redis.Redis, proxy: Proxy, quick: None
) -> None:
    (line,) = re.findall("^ACL (SETUSER .*)$", SCALE.read_text(), re.MULTILINE)
    client.execute_command("ACL", *line.replace("PASSWORD", "pw").replace("NAME", "app").split())
    client.acl_log_reset()
    address = f"redis://daemonkit:pw@127.0.0.1:{engine.port}/0"
    node = Node(address, dead_letters=2).start()
    node.queue._puts._connector._engine = through(proxy, node, "daemonkit:pw@")
    node.handle(lambda event: 1 / (event % 3))
    try:
        # With an answer that is lost, and asked for again.
        node.put(1)
        node.queue._puts._socket._end()
        wait_until(lambda: node.queue._puts._socket)
        proxy.cut_after(DOWN, 3)
        node.put(*range(2, 30))
        assert proxy.was_cut
        wait_until(lambda: node.queue.counters()["discarded"] == 7)
        node.put(*range(30, 33))
        failures = node.queue.failed_events
        wait_until(lambda: failures.page(Selection(), None, 10, whole=True).total == 2)
        assert failures.retry(Selection()).number == 2
        wait_until(lambda: failures.page(Selection(), None, 10, whole=True).total == 2)
        node.queue.pause()
        node.put(*range(40, 50))
        with closing(SharedEditor(address)) as editor:
            editor.add([b"4"])
            assert editor.count(["waiting"]) == 11
            assert failures.drop(Selection()).number == 2
            assert editor.drop_all(["waiting"]) == 11
        assert client.acl_log() == []
    finally:
        node.close()
    assert client.acl_log() == []
    client.acl_deluser("daemonkit")
