from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit.cli.client import Client, Unreachable, parse_address
from daemonkit.cli.sender import DatagramSender, HttpSender, Pace, Retries, Stopped

from .stub import Reply, Request, Stub, envelope, serving

LOST = Reply(None)
FULL = envelope("The queue is full", 503, **{"Retry-After": "2"})
INVALID = envelope("Invalid JSON", 400)
FORBIDDEN = envelope("The token shop may not send", 403)


def accepted(_: Request | None = None) -> Reply:
    return envelope("received")


class Sending:
    """A sender to a stub that gives these answers in turn, with a clock that only sleeping moves."""

    def __init__(self, stub: Stub, seconds: float, resends: bool) -> None:
        self.now, self.slept, self.reports = 0.0, list[float](), list[str]()
        self.client = Client(parse_address(stub.url), timeout=60)
        retries = Retries(seconds, resends)
        self.sender = HttpSender(
            self.client, retries, self.reports.append, self._sleep, lambda: self.now
        )

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def counts(self) -> tuple[int, int, int, int]:
        counts = self.sender.counts
        return counts.sent, counts.accepted, counts.refused, counts.unknown


Make = Callable[..., Sending]


@pytest.fixture
def make() -> Iterator[Make]:
    with serving(accepted) as stub:
        made: list[Sending] = []

        def start(*answers: Reply, seconds: float = 10.0, resends: bool = False) -> Sending:
            left = list(answers)
            stub.answer = lambda _: left.pop(0) if left else accepted()
            made.append(Sending(stub, seconds, resends))
            made[-1].stub = stub  # type: ignore[attr-defined]
            return made[-1]

        yield start
        for sending in made:
            sending.client.close()


def bodies(sending: Any) -> list[bytes]:
    return [request.body for request in sending.stub.requests]


def test_a_batch_is_one_request(make: Make) -> None:
    sending: Any = make()
    sending.sender.send([b"1", b'{"a": 2}'], "lines 1-2")

    (request,) = sending.stub.requests
    assert (request.method, request.path, request.body) == ("POST", "/events", b'1\n{"a": 2}\n')
    assert request.fields["content-type"] == "application/x-ndjson"
    assert sending.counts() == (2, 2, 0, 0)


def test_without_room_it_is_sent_again_when_retry_after_says(make: Make) -> None:
    sending = make(FULL, FULL)
    sending.sender.send([b"1"], "line 1")

    assert sending.slept == [2.0, 2.0]
    assert bodies(sending) == [b"1\n"] * 3
    assert sending.counts() == (1, 1, 0, 0)


@pytest.mark.parametrize(("field", "seconds"), [("7", 7.0), ("9999", 60.0), ("soon", 1.0)])
def test_retry_after_is_bounded(make: Make, field: str, seconds: float) -> None:
    sending = make(envelope("full", 503, **{"Retry-After": field}), seconds=100)
    sending.sender.send([b"1"], "line 1")

    assert sending.slept == [seconds]


def test_it_does_not_retry_longer_than_it_may(make: Make) -> None:
    sending = make(*[FULL] * 100)
    with pytest.raises(Stopped) as caught:
        sending.sender.send([b"1", b"2"], "lines 1-2")

    assert sending.slept == [2.0] * 5
    assert caught.value.exit_status == 1
    assert str(caught.value).endswith(" answered 503 The queue is full")
    assert sending.counts() == (2, 0, 2, 0)


def test_a_refusal_of_the_events_is_counted_and_the_next_batch_is_sent(make: Make) -> None:
    sending: Any = make(INVALID)
    sending.sender.send([b"1", b"2"], "lines 1-2")
    sending.sender.send([b"3"], "line 3")

    assert sending.counts() == (3, 1, 2, 0)
    assert sending.reports == [f"lines 1-2: {sending.stub.url} answered 400 Invalid JSON"]


@pytest.mark.parametrize("reply", [FORBIDDEN, Reply(200, b"<html>"), envelope("x", 404)])
def test_a_refusal_of_everything_ends_it(make: Make, reply: Reply) -> None:
    sending = make(reply)
    with pytest.raises(Stopped) as caught:
        sending.sender.send([b"1"], "line 1")

    assert caught.value.exit_status == 1
    assert sending.counts() == (1, 0, 1, 0)


def test_a_batch_whose_answer_was_lost_is_unknown_and_not_sent_again(make: Make) -> None:
    sending: Any = make(accepted(), LOST)
    for number in (b"1", b"2", b"3"):
        sending.sender.send([number], f"line {number.decode()}")

    assert bodies(sending) == [b"1\n", b"2\n", b"3\n"]
    assert sending.counts() == (3, 2, 0, 1)
    assert sending.reports == [
        f"line 2: cannot reach {sending.stub.url}: the connection was closed before an answer; "
        "whether the events were accepted is unknown"
    ]


def test_with_at_least_once_it_is_sent_again(make: Make) -> None:
    sending = make(LOST, LOST, resends=True)
    sending.sender.send([b"1"], "line 1")

    assert bodies(sending) == [b"1\n"] * 3
    assert sending.counts() == (1, 1, 0, 0)


def test_with_at_least_once_it_is_unknown_in_the_end(make: Make) -> None:
    sending = make(*[LOST] * 100, resends=True)
    with pytest.raises(Unreachable):
        sending.sender.send([b"1"], "line 1")

    assert sending.slept == [1.0] * 10
    assert sending.counts() == (1, 0, 0, 1)


def test_a_daemon_that_loses_two_in_a_row_gets_no_more(make: Make) -> None:
    sending = make(accepted(), LOST, LOST)
    sending.sender.send([b"1"], "line 1")
    sending.sender.send([b"2"], "line 2")
    with pytest.raises(Stopped, match="unknown$") as caught:
        sending.sender.send([b"3"], "line 3")

    assert caught.value.exit_status == 3
    assert sending.counts() == (3, 1, 0, 2)


def test_a_daemon_that_was_never_there_is_not_waited_for() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        stub = Stub(accepted)
        stub.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        sending = Sending(stub, 10.0, resends=False)
        with pytest.raises(Unreachable):
            sending.sender.send([b"1"], "line 1")

    assert (sending.slept, sending.counts()) == ([], (0, 0, 0, 0))


def test_a_daemon_that_is_restarting_is_waited_for(make: Make, monkeypatch: Any) -> None:
    sending = make()
    sending.sender.send([b"1"], "line 1")
    post = sending.client.post
    failures = [Unreachable("refused"), Unreachable("refused")]

    def refused(*arguments: Any) -> Any:
        if failures:
            raise failures.pop()
        return post(*arguments)

    monkeypatch.setattr(sending.client, "post", refused)
    sending.sender.send([b"2"], "line 2")

    assert (sending.slept, sending.counts()) == ([1.0, 1.0], (2, 2, 0, 0))


def test_one_that_does_not_come_back_ends_it_with_the_place(make: Make, monkeypatch: Any) -> None:
    sending = make()
    sending.sender.send([b"1"], "line 1")

    def refused(*_: Any) -> Any:
        raise Unreachable("refused")

    monkeypatch.setattr(sending.client, "post", refused)
    with pytest.raises(Stopped, match="^stopped at line 2: refused$") as caught:
        sending.sender.send([b"2"], "line 2")

    assert caught.value.exit_status == 3
    # It wasn't sent.
    assert sending.counts() == (1, 1, 0, 0)


def test_a_batch_in_flight_at_an_interrupt_is_unknown(make: Make) -> None:
    sending = make()

    def interrupt(*_: Any) -> Any:
        raise KeyboardInterrupt

    sending.client.post = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        sending.sender.send([b"1", b"2"], "lines 1-2")

    assert sending.counts() == (2, 0, 0, 2)


# Datagrams


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(60)
        yield made


def test_each_event_is_a_datagram(receiver: socket.socket) -> None:
    reports: list[str] = []
    port = receiver.getsockname()[1]
    sender = DatagramSender(parse_address(f"http://127.0.0.1:{port}"), reports.append)
    large = json.dumps("x" * 65_506).encode()
    sender.send([b"1", large, b'{"a": 2}'], "lines 1-3")
    sender.finish()
    sender.close()

    assert [receiver.recv(100), receiver.recv(100)] == [b"1", b'{"a": 2}']
    assert (sender.counts.unknown, sender.counts.refused) == (2, 1)
    assert reports == ["lines 1-3: an event of 65508 bytes doesn't fit into a datagram (65507)"]


def test_a_port_of_this_machine_where_nothing_listens_is_noticed(receiver: socket.socket) -> None:
    port = receiver.getsockname()[1]
    receiver.close()
    sender = DatagramSender(parse_address(f"http://127.0.0.1:{port}"), print)
    sender.send([b"1"], "line 1")
    with pytest.raises(Stopped) as caught:
        sender.finish()
    sender.close()

    assert caught.value.exit_status == 3
    assert str(caught.value) == (
        f"nothing listens for datagrams at 127.0.0.1 port {port}: Connection refused"
    )


# Pace


def test_events_keep_to_the_rate_without_bursts() -> None:
    slept: list[float] = []
    now = [100.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(10.0, sleep, lambda: now[0])
    for _ in range(3):
        pace.wait(5)
    now[0] += 60
    for _ in range(2):
        pace.wait(5)

    assert slept == [0.5, 0.5, 0.5]


def test_without_a_rate_nothing_waits() -> None:
    Pace(None, lambda _: pytest.fail("it slept"), lambda: 0.0).wait(10**9)
