from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonkit import Daemon, Secret
from daemonkit.config.defaults import Settings
from daemonkit.events.durable import backlog
from daemonkit.events.intake import Intake
from daemonkit.events.memory import MemoryQueue
from daemonkit.testing import Client, running
from daemonkit.web.access import Access, Peer
from daemonkit.web.fast_lane import MAX_BATCH, MAX_BODY, MAX_GATHERED, FastLane, Head, read_head

from ..json_values import json_values
from .connections import full
from .corpus import (
    AUTHORIZATIONS,
    AUTHORIZED,
    AUTHORIZED_ONE,
    BATCHES,
    CHUNKED,
    CORPUS,
    FORWARDINGS,
    GUARDED_CORPUS,
    HEADERS,
    LIMIT,
    LINES,
    NAMED,
    NDJSON,
    ONE,
    OTHER_SEND_TOKEN,
    READ_TOKEN,
    SEND_TOKEN,
    SITES,
    request,
)
from .raw import connect, read_all

LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


class Side:
    """A daemon that accepts events in one of the two ways, and the events that it has handled."""

    def __init__(self, app: Daemon, client: Client) -> None:
        self.app, self.client = app, client
        self.events: list[Any] = []

    @property
    def server(self) -> Any:
        assert self.app._assembly.parts is not None
        return self.app._assembly.parts.server._listener

    def exchange(self, *pieces: bytes) -> bytes:
        """Send the pieces, each once the previous one has been read, then a last request; returns
        all answers without their dates."""
        with connect(self.client) as sock:
            for piece in pieces:
                sock.sendall(piece)
                if piece is not pieces[-1]:
                    self.client.wait_until(lambda: self.server.clients.receiving, "a request begun")
            try:
                sock.sendall(LAST)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # The server has refused the first one and closed the connection.
            return without_dates(read_all(sock))

    def fast_events(self) -> int:
        """How many events the lane has accepted."""
        count: int = self.client.status()["http"]["fast_events"]
        return count


def without_dates(answers: bytes) -> bytes:
    return re.sub(rb"\r\nDate: [^\r]+", b"", answers)


def make(fast_events: bool, queue: str | None = None, **more: Any) -> Iterator[Side]:
    """more: settings, with which the handler records who has sent an event, too."""
    app = Daemon("app")
    app.route("/last", endpoint="last")(lambda: "last")
    if more:
        app.add_event_handler(
            lambda event, meta: side.events.append(
                (event, meta.sender, re.sub(r"(\d+\.\d+\.\d+\.\d+):\d+", r"\1", meta.peer))
            )
        )
    else:
        app.add_event_handler(lambda event: side.events.append(event))
    master = {"fast_events": fast_events, "max_request_size": LIMIT, "queue_size": 1000}
    with running(app, {"master": {**master, "queue": queue, **more}}) as client:
        side = Side(app, client)
        yield side


@pytest.fixture(scope="module")
def fast() -> Iterator[Side]:
    yield from make(True)


@pytest.fixture(scope="module")
def slow() -> Iterator[Side]:
    yield from make(False)


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(CORPUS) >= 200


def same_both_ways(fast: Side, slow: Side, *pieces: bytes, interim: bytes = b"") -> None:
    """interim: what to leave out of the comparison."""
    for side in (fast, slow):
        side.events.clear()
    answers = [side.exchange(*pieces).replace(interim, b"") for side in (fast, slow)]

    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.")
    assert handled(fast) == handled(slow)


def handled(side: Side) -> str:
    """The events that the handler got, as text, in which 1 and true differ."""

    parts = side.app._assembly.parts
    assert parts is not None
    side.client.wait_until(lambda: not (len(parts.queue) or parts.processor.in_work))
    return json.dumps(side.events)


@pytest.mark.parametrize("data", CORPUS.values(), ids=CORPUS)
def test_both_ways_answer_the_same(fast: Side, slow: Side, data: bytes) -> None:
    same_both_ways(fast, slow, data)
    assert slow.fast_events() == 0


GUARDED = {
    "tokens": {
        "shop": [Secret(SEND_TOKEN), Secret(OTHER_SEND_TOKEN)],
        "grafana": {"token": Secret(READ_TOKEN), "may": ["read", "control"]},
    },
    "allow_from": ["127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"],
    "allowed_hosts": ["x", ".internal", "2001:db8::7"],
}
PROXIES = {"behind a proxy": ["127.0.0.1"], "direct": ["10.0.0.7"]}


class Guarded(NamedTuple):
    """The two ways, with the settings for access control."""

    fast: Side
    slow: Side


@pytest.fixture(scope="module", params=PROXIES)
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    settings = {**GUARDED, "trusted_proxies": PROXIES[request.param]}
    for fast in make(True, **settings):
        for slow in make(False, **settings):
            yield Guarded(fast, slow)


def guarded_status(side: Side) -> dict[str, Any]:
    fields = {"Authorization": f"Bearer {READ_TOKEN}"}
    found: dict[str, Any] = side.client.get("/status", headers=fields).json()["message"]
    return found


@pytest.mark.parametrize("data", GUARDED_CORPUS.values(), ids=GUARDED_CORPUS)
def test_both_ways_control_access_the_same(guarded: Guarded, data: bytes) -> None:
    same_both_ways(*guarded, data)
    assert guarded_status(guarded.slow)["http"]["fast_events"] == 0


def test_the_lane_stays_open_and_is_used_with_every_setting_for_access_control(
    guarded: Guarded,
) -> None:
    before = guarded_status(guarded.fast)["http"]["fast_events"]
    forwarded = ("X-Forwarded-For: 203.0.113.1, 192.0.2.5", "X-Forwarded-Host: a.internal")
    guarded.fast.exchange(
        AUTHORIZED_ONE
        + request(b"1\n2", NDJSON, f"Authorization: bearer {OTHER_SEND_TOKEN}")
        + request(b"3", AUTHORIZED, *forwarded, "X-Forwarded-Proto: https", "Via: 1.1 a")
    )
    http = guarded_status(guarded.fast)["http"]

    assert http["fast_lane"] == "open"
    assert http["fast_events"] - before == 4


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(
            lambda headers, host: request(b"[1]", *headers).replace(
                b"Host: x\r\n", f"Host: {host}\r\n".encode("latin-1")
            ),
            st.lists(
                st.sampled_from([AUTHORIZED] * 20 + AUTHORIZATIONS)
                | st.sampled_from(FORWARDINGS)
                | st.sampled_from(SITES),
                max_size=4,
            ),
            st.just("x") | st.sampled_from(NAMED),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_both_ways_control_access_the_same_to_any_request(
    guarded: Guarded, datas: list[bytes]
) -> None:
    same_both_ways(*guarded, b"".join(datas), interim=INTERIM)


@pytest.mark.parametrize("in_memory", [backlog.READY_EVENTS, 0], ids=["direct", "from the file"])
def test_a_durable_queue_answers_the_same_and_delivers_the_same_events(
    slow: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    """One after the other: to repeat all of them would take too long."""
    monkeypatch.setattr(backlog, "READY_EVENTS", in_memory)
    sides = make(True, str(tmp_path / "events.db"))
    durable = next(sides)
    for data in CORPUS.values():
        same_both_ways(durable, slow, data)
    assert durable.fast_events() > 100
    assert list(sides) == []


def test_requests_that_arrive_during_an_iteration_are_committed_with_it(tmp_path: Path) -> None:
    app = Daemon("app")
    with running(app, {"master": {"queue": str(tmp_path / "events.db")}}) as client:
        assert app._assembly.parts is not None
        queue: Any = app._assembly.parts.queue
        lane, late = app._assembly.parts.server._lane, []
        commits: list[int] = []
        assert lane is not None
        real_take, real_put = lane.take, queue.put_many

        def take(connection: Any, data: bytes) -> bytes:
            rest = real_take(connection, data)
            if not late:
                late.append(True)
                second.sendall(ONE)
            return rest

        with connect(client) as first, connect(client) as second:
            for sock in (first, second):
                sock.sendall(ONE)
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
            queue.put_many = lambda batch: (commits.append(len(batch.events)), real_put(batch))
            lane.take = take  # type: ignore[method-assign]
            first.sendall(ONE)
            for sock in (first, second):
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")

    assert commits == [2]


def test_both_ways_answer_the_same_except_for_an_interim_answer(fast: Side, slow: Side) -> None:
    """Waitress omits it while the previous request is in work; in the lane, that is already
    done."""
    same_both_ways(fast, slow, ONE + request(b"{}", "Expect: 100-continue") + ONE, interim=INTERIM)


@pytest.mark.parametrize("at", range(1, len(ONE)))
def test_both_ways_answer_the_same_split_at_every_byte(fast: Side, slow: Side, at: int) -> None:
    same_both_ways(fast, slow, ONE[:at], ONE[at:])


@pytest.mark.parametrize("name", ["two events", "event, batch, event", "good, bad, good"])
def test_both_ways_answer_the_same_in_three_pieces(fast: Side, slow: Side, name: str) -> None:
    data = CORPUS[name]
    for first in range(1, len(ONE) - 1, 7):
        same_both_ways(fast, slow, data[:first], data[first : first + 1], data[first + 1 :])


def test_plain_events_really_take_the_lane(fast: Side) -> None:
    before = fast.fast_events()
    plain = [request(b"[1]"), request(b"1\n2", NDJSON), request(b"{}", "Connection: keep-alive")]
    fast.exchange(b"".join(plain))

    assert fast.fast_events() - before == 4


def test_a_flood_of_pipelined_events_stays_in_the_lane(fast: Side) -> None:
    """However the reads cut them into pieces."""
    before, count = fast.fast_events(), 900
    answers = fast.exchange(ONE * count)

    assert answers.count(b"HTTP/1.1 200 OK") == count + 1
    assert fast.fast_events() - before == count


def test_a_batch_of_many_lines_is_left_to_flask(fast: Side) -> None:
    before = fast.fast_events()
    fast.exchange(request(b"1\n2" + b"\n" * 1000, NDJSON))
    assert fast.fast_events() == before

    fast.exchange(request(b"1\n2" + b"\n" * 999, NDJSON))
    assert fast.fast_events() == before + 2


def test_blank_lines_between_requests_do_not_leave_the_lane(fast: Side) -> None:
    before = fast.fast_events()
    fast.exchange((b"\r\n" + ONE) * 3)

    assert fast.fast_events() - before == 3


JSON_TEXTS = json_values(finite=False, max_leaves=5).map(lambda value: json.dumps(value).encode())
TOKENS = st.text("abcXYZ019-_!~", min_size=1, max_size=8)
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=12)
FIELDS = st.sampled_from(HEADERS) | st.builds("{}: {}".format, TOKENS, VALUES)
REQUESTS = st.builds(
    lambda body, headers, line, length: request(body, *headers, line=line, length=length),
    JSON_TEXTS | st.binary(max_size=20) | st.sampled_from(BATCHES[:18]),
    st.lists(FIELDS, max_size=3),
    st.just("POST /events HTTP/1.1") | st.sampled_from(LINES),
    st.sampled_from([-1, -1, -1, -1, 0, 1, None]),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.just(ONE) | REQUESTS, min_size=1, max_size=3))
def test_both_ways_answer_any_request_the_same(fast: Side, slow: Side, datas: list[bytes]) -> None:
    same_both_ways(fast, slow, b"".join(datas), interim=INTERIM)


def test_both_ways_refuse_the_same_when_full_or_stopping() -> None:
    answers = []
    for fast_events in (True, False):
        app = Daemon("app")
        app.route("/last", endpoint="last")(lambda: "last")
        with full(app, fast_events=fast_events) as client:
            side = Side(app, client)
            found = [side.exchange(ONE + ONE), side.exchange(request(b"1\n2", NDJSON))]
            found += [side.exchange(request(b"1", NDJSON))]
            assert app._assembly.parts is not None
            app._assembly.parts.intake.close()
            found += [side.exchange(ONE + ONE), side.exchange(request(b"1\n2", NDJSON))]
            answers.append((found, client.status()["events"]["refused"]))

    assert answers[0] == answers[1]
    busy, too_many, batch, stopping, _ = answers[0][0]
    assert answers[0][1] == 9
    assert busy.count(b"\r\nRetry-After: 1\r\n") == 2
    assert b'"The event queue is full (1 events)"' in busy
    assert too_many.startswith(b"HTTP/1.1 413 REQUEST ENTITY TOO LARGE\r\n")
    assert batch.startswith(b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\n")
    assert stopping.count(b'"The daemon is stopping"') == 2
    assert stopping.count(b"\r\nRetry-After: 5\r\n") == 2


def test_requests_that_find_room_are_accepted_and_the_rest_of_the_iteration_refused() -> None:
    """Pipelined, so that all of it arrives in one iteration of the loop."""
    app = Daemon("app")
    entered: list[Any] = []

    @app.on_event
    def handle(event: Any) -> None:
        entered.append(event)
        app.shutdown.wait(10)

    with running(app, {"master": {"queue_size": 2}}) as client:
        app.put_event(0)
        client.wait_until(lambda: entered)
        with connect(client) as sock:
            sock.sendall(b"".join(request(b"%d" % n) for n in range(1, 5)))
            answers = b""
            while answers.count(b"}\n") < 4:
                answers += sock.recv(65536)
        counted = client.status()["events"]

    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"503", b"503"]
    assert (counted["received"], counted["refused"]) == (3, 2)
    assert entered == [0, 1, 2]


def test_a_message_that_holds_a_secret_is_redacted() -> None:
    app = Daemon("app")
    with full(app, word=Secret("queue")) as client:
        answer = client.post("/events", data=b"1")

        assert client.status()["http"]["fast_events"] == 0
    assert answer.json()["message"] == "The event *** HIDDEN *** is full (1 events)"


def test_a_handler_that_takes_meta_gets_the_sender_of_each_event() -> None:
    app = Daemon("app")
    seen: list[Any] = []
    app.add_event_handler(lambda event, meta: seen.append((event, meta)))
    with running(app) as client:
        with connect(client) as sock:
            sock.sendall(ONE + request(b"1\n2", NDJSON) + LAST)
            read_all(sock)
            port = sock.getsockname()[1] if sock.fileno() >= 0 else 0
        client.wait_until(lambda: len(seen) == 3)
        assert client.status()["http"]["fast_events"] == 3

    assert [event for event, _ in seen] == [{"a": 1}, 1, 2]
    assert {(meta.source, meta.peer) for _, meta in seen} == {("http", f"127.0.0.1:{port}")}


def head(*fields: str) -> bytes:
    return "\r\n".join(["POST /events HTTP/1.1", *fields, "", ""]).encode("latin-1")


def read(data: bytes) -> Head | None:
    return read_head(data, Access(Settings()), False)


def test_a_plain_head_is_read() -> None:
    assert read(head("Host: a", "Content-Length: 7")) == Head(7, False)
    assert read(head("host:a", "content-length:7", f"{NDJSON}; x")) == Head(7, True)
    assert read(head("Host: a", f"Content-Length: {MAX_BATCH + 1}", NDJSON)) is None
    assert read(head("Host: a", f"Content-Length: {MAX_BODY}")) == Head(MAX_BODY, False)


@pytest.mark.parametrize(
    "fields",
    [
        ("Host: a",),
        ("Content-Length: 7",),
        ("Host: a", "Content-Length: 7", "Content-Length: 7"),
        ("Host: a", "Content-Length: 7", CHUNKED),
        ("Host: a", "Content-Length: 7", "Expect: 100-continue"),
        ("Host: a", "Content-Length: 7", "Connection: close"),
        ("Host: a", "Content-Length: 7", " folded"),
        ("Host: a", "Content-Length: 7", "Cookie: a=b"),
    ],
)
def test_any_other_head_is_left_to_waitress(fields: tuple[str, ...]) -> None:
    assert read(head(*fields)) is None


class Connection:
    """Records its answers."""

    other_end = Peer("127.0.0.1", 1)

    def __init__(self) -> None:
        self.partial = b""
        self.blank = 0
        self.last_origin = None
        self.answer_pending = False
        self.answers: list[bytes] = []

    def answer(self, data: bytes) -> None:
        self.answer_pending = False
        self.answers.append(data)


class Lane:
    """A fast lane with a queue and one connection."""

    def __init__(self, *, size: int = 10_000, limit: int = LIMIT) -> None:
        self.queue = MemoryQueue(size)
        self.blocker = ""
        self.checks = 0
        self.lane = FastLane(
            Intake(self.queue, 2**20), self._find_blocker, Access(Settings()), limit
        )
        self.connection = Connection()

    def _find_blocker(self) -> str:
        self.checks += 1
        return self.blocker

    def take(self, data: bytes) -> bytes:
        before, self.connection.partial = self.connection.partial, b""
        return self.lane.take(self.connection, before + data)


@pytest.fixture
def lane() -> Lane:
    return Lane()


def test_events_are_queued_and_answered_at_the_end_of_the_iteration(lane: Lane) -> None:
    assert lane.take(ONE + request(b"1\n2", NDJSON)) == b""
    assert (len(lane.queue), lane.connection.answer_pending) == (0, True)

    lane.lane.end_iteration()
    (answers,) = lane.connection.answers
    assert (len(lane.queue), lane.lane.accepted, lane.connection.answer_pending) == (3, 3, False)
    assert re.findall(rb'"message": "([^"]+)"', answers) == [
        *(b"Event received", b"2 events received")
    ]

    lane.lane.end_iteration()
    assert len(lane.connection.answers) == 1


def test_an_incomplete_request_is_kept_until_the_rest_arrives(lane: Lane) -> None:
    for at in range(1, len(ONE)):
        assert lane.take(ONE[:at]) == b""
        assert lane.connection.partial == ONE[:at]
        assert lane.take(ONE[at:]) == b""
        assert lane.connection.partial == b""
    lane.lane.end_iteration()

    assert len(lane.queue) == len(ONE) - 1


def test_events_before_another_request_are_answered_before_it(lane: Lane) -> None:
    rest = lane.take(ONE + LAST + ONE)

    assert rest == LAST + ONE
    assert len(lane.connection.answers) == 1


def test_a_body_over_max_request_size_is_left_to_flask() -> None:
    lane = Lane(limit=3)

    assert lane.take(request(b"123")) == b""
    assert lane.take(request(b"1234")) == request(b"1234")


def test_the_blocker_is_checked_once_per_iteration(lane: Lane) -> None:
    lane.take(ONE * 3)
    lane.blocker = "an error handler of your own"
    lane.take(ONE)
    assert lane.checks == 1

    lane.lane.end_iteration()
    assert len(lane.queue) == 4
    assert lane.take(ONE) == ONE
    assert lane.checks == 2
    assert lane.lane.state() == "closed: an error handler of your own"


def test_requests_are_gathered_for_a_durable_queue_while_more_arrive(lane: Lane) -> None:
    lane.queue.gathers = True
    gathered = []
    for count in (0, 1, 2, 0, 1):
        lane.take(ONE * count)
        gathered.append(lane.lane.continue_gathering())
    assert gathered == [False, True, True, False, True]

    lane.take(ONE * MAX_GATHERED)
    assert not lane.lane.continue_gathering()


def test_requests_for_a_queue_in_memory_are_not_gathered(lane: Lane) -> None:
    lane.take(ONE)
    assert not lane.lane.continue_gathering()


def test_a_request_without_room_is_answered_503_and_not_counted() -> None:
    lane = Lane(size=2)
    lane.take(ONE + request(b"1\n2", NDJSON) + ONE)
    lane.lane.end_iteration()

    assert re.findall(rb"HTTP/1.1 (\d+)", lane.connection.answers[0]) == [b"200", b"503", b"200"]
    assert (len(lane.queue), lane.lane.accepted) == (2, 2)
