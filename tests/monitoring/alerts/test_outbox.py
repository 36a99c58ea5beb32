from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.backend import Post, TryLater
from daemonkit.monitoring.alerts.outbox import OUTBOX_SIZE, Outbox
from daemonkit.text import error_text

from .juggler_server import wait_for

LOGGER = logging.getLogger("test")
NO_THREAD = "Cannot send alerts; the next alert retries: RuntimeError: can't start new thread"

MakeOutbox = Callable[..., Outbox]


class FakeBackend:
    """posted: the alerts received, in order; requests: how many came in each; answer: returned for
    each alert, or raised by each post; released: a post waits for it."""

    name = "fake"
    address = "Fake at home"
    batch = 1

    def __init__(self) -> None:
        self.posted: list[Alert] = []
        self.requests: list[int] = []
        self.answer: str | Exception | None = None
        self.connect_error: BaseException | None = None
        self.released = threading.Event()
        self.released.set()

    @contextmanager
    def connect(self) -> Iterator[Post]:
        if self.connect_error is not None:
            raise self.connect_error
        yield self.post

    def post(self, alerts: Sequence[Alert]) -> Sequence[str | None]:
        self.posted += alerts
        self.requests.append(len(alerts))
        self.released.wait(300)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [self.answer] * len(alerts)


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def make_outbox(backend: FakeBackend) -> Iterator[MakeOutbox]:
    """Make an outbox, and stop it after the test."""
    made: list[Outbox] = []

    def make(retry: tuple[float, float] = (0.01, 0.05), *, newest_only: bool = False) -> Outbox:
        redact = lambda text: text.replace("hush", "*")  # noqa: E731
        made.append(Outbox(backend, LOGGER, redact, retry, newest_only=newest_only))
        return made[-1]

    yield make
    backend.released.set()
    for outbox in made:
        outbox.request_stop()
        assert outbox.join(30)


@pytest.fixture
def outbox(make_outbox: MakeOutbox) -> Outbox:
    return make_outbox()


def alert(description: str) -> Alert:
    return Alert("host", "service", "OK", description)


def alerts(count: int) -> list[Alert]:
    return [alert(str(number)) for number in range(count)]


def wait_for_sent(outbox: Outbox, count: int) -> None:
    wait_for(lambda: outbox.counters()["sent"] == count)


def test_alerts_are_posted_in_order(outbox: Outbox, backend: FakeBackend) -> None:
    for one in alerts(20):
        outbox.put(one)
    wait_for_sent(outbox, 20)

    assert backend.posted == alerts(20)
    assert outbox.counters() == {"waiting": 0, "sent": 20, "refused": 0, "dropped": 0}


def test_secrets_in_the_texts_are_redacted(outbox: Outbox, backend: FakeBackend) -> None:
    outbox.put(Alert("hush1", "hush2", "hush", "hush3"))
    wait_for(lambda: backend.posted)

    assert backend.posted == [Alert("*1", "*2", "hush", "*3")]


def test_a_refused_alert_is_logged_and_not_retried(
    outbox: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.answer = "400: bad tags"
    outbox.put(alert("first"))
    wait_for(lambda: caplog.messages)
    backend.answer = None
    outbox.put(alert("second"))
    wait_for_sent(outbox, 1)

    assert backend.posted == [alert("first"), alert("second")]
    assert caplog.messages == [f"Fake at home refused {alert('first')}: 400: bad tags"]
    assert outbox.counters() == {"waiting": 0, "sent": 1, "refused": 1, "dropped": 0}


def test_an_alert_that_breaks_the_backend_is_logged_and_the_next_one_is_sent(
    outbox: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.answer = ZeroDivisionError("division by zero")
    outbox.put(alert("first"))
    wait_for(lambda: caplog.messages)
    backend.answer = None
    outbox.put(alert("second"))
    wait_for_sent(outbox, 1)

    assert backend.posted == [alert("first"), alert("second")]
    assert caplog.messages == [f"Could not send alerts: {alert('first')}"]
    assert outbox.counters()["refused"] == 1


def test_an_unavailable_backend_is_retried_and_logged_once_at_each_end(
    outbox: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def outage(one: Alert, sent: int) -> None:
        backend.answer = TryLater("HTTP 503")
        outbox.put(one)
        wait_for(lambda: backend.posted.count(one) >= 3)
        backend.answer = None
        wait_for_sent(outbox, sent)

    caplog.set_level(logging.INFO)
    outage(alert("first"), sent=1)
    outage(alert("second"), sent=2)

    messages = [
        "Fake at home is unavailable, retrying: HTTP 503",
        "Fake at home is available again",
    ]
    assert caplog.messages == messages * 2


def test_the_delay_between_attempts_doubles_up_to_the_longest_and_starts_over(
    make_outbox: MakeOutbox, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = make_outbox(retry=(1.0, 5.0))
    delays: list[float] = []
    really_wait = outbox._changed.wait_for

    def wait(predicate: Callable[[], object], timeout: float | None = None) -> object:
        if timeout is not None:
            delays.append(timeout)
            backend.answer = None if len(delays) in (5, 7) else TryLater("no")
        return really_wait(predicate, timeout and 0.0)

    monkeypatch.setattr(outbox._changed, "wait_for", wait)
    for count in (1, 2):
        backend.answer = TryLater("no")
        outbox.put(alert("x"))
        wait_for_sent(outbox, count)

    assert delays == [1.0, 2.0, 4.0, 5.0, 5.0, 1.0, 2.0]


def test_a_full_outbox_drops_the_oldest_and_logs_the_first(
    outbox: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.released.clear()
    for one in alerts(OUTBOX_SIZE + 2):
        outbox.put(one)

    assert outbox.counters() == {"waiting": OUTBOX_SIZE, "sent": 0, "refused": 0, "dropped": 2}
    assert caplog.messages == [
        "More than 1000 alerts are waiting for Fake at home; dropping the oldest, "
        f"first {alert('0')}"
    ]


def test_an_alert_dropped_while_it_is_posted_removes_no_other(
    outbox: Outbox, backend: FakeBackend
) -> None:
    backend.released.clear()
    everything = alerts(OUTBOX_SIZE + 1)
    outbox.put(everything[0])
    wait_for(lambda: backend.posted)
    for one in everything[1:]:
        outbox.put(one)
    backend.released.set()
    wait_for(lambda: outbox.counters()["waiting"] == 0)

    assert backend.posted == everything


def test_alerts_that_wait_together_are_posted_together(
    outbox: Outbox, backend: FakeBackend
) -> None:
    backend.batch = 3
    backend.released.clear()
    outbox.put(alert("first"))
    wait_for(lambda: backend.posted)
    for one in alerts(4):
        outbox.put(one)
    backend.released.set()
    wait_for_sent(outbox, 5)

    assert backend.posted == [alert("first"), *alerts(4)]
    assert backend.requests == [1, 3, 1]


# One state per service


def state(service: str, status: str, previous: str | None) -> Alert:
    return Alert("host", service, status, "", previous=previous)


@pytest.fixture
def states(make_outbox: MakeOutbox) -> Outbox:
    return make_outbox(newest_only=True)


def test_the_newest_state_of_a_service_takes_the_place_of_a_waiting_one(
    states: Outbox, backend: FakeBackend
) -> None:
    backend.released.clear()
    states.put(state("first", "CRIT", None))
    wait_for(lambda: backend.posted)
    for one in (
        state("disk", "CRIT", None),
        state("load", "WARN", "OK"),
        state("disk", "WARN", "CRIT"),
        state("disk", "OK", "WARN"),
    ):
        states.put(one)
    assert states.counters() == {"waiting": 3, "sent": 0, "refused": 0, "dropped": 0}
    backend.released.set()
    wait_for_sent(states, 3)

    # What was never sent is not what was sent before.
    assert backend.posted[1:] == [state("disk", "OK", None), state("load", "WARN", "OK")]


def test_a_change_during_a_request_is_sent_after_it(states: Outbox, backend: FakeBackend) -> None:
    backend.released.clear()
    states.put(state("disk", "WARN", "OK"))
    wait_for(lambda: backend.posted)
    states.put(state("disk", "WARN", "WARN"))
    states.put(state("disk", "CRIT", "WARN"))
    backend.released.set()
    wait_for_sent(states, 2)

    assert backend.posted == [state("disk", "WARN", "OK"), state("disk", "CRIT", "WARN")]
    assert states.counters()["waiting"] == 0


def test_a_state_that_changes_while_its_target_is_away_is_sent_as_it_is_then(
    states: Outbox, backend: FakeBackend
) -> None:
    backend.answer = TryLater("HTTP 503")
    states.put(state("disk", "CRIT", None))
    wait_for(lambda: len(backend.posted) > 1)
    states.put(state("disk", "OK", "CRIT"))
    wait_for(lambda: state("disk", "OK", None) in backend.posted)
    backend.answer = None
    wait_for_sent(states, 1)

    assert backend.posted[-1] == state("disk", "OK", None)
    assert states.counters() == {"waiting": 0, "sent": 1, "refused": 0, "dropped": 0}


def test_a_refusal_of_what_is_repeated_is_logged_once(
    states: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    def send(one: Alert, answer: str | None) -> None:
        backend.answer = answer
        states.put(one)
        wait_for(lambda: states.counters()["waiting"] == 0)

    repeated = state("disk", "CRIT", "CRIT")
    send(state("disk", "CRIT", None), None)
    send(repeated, "HTTP 401: no")
    send(repeated, "HTTP 401: no")
    send(state("disk", "WARN", "CRIT"), "HTTP 401: no")
    send(repeated, None)
    send(repeated, "HTTP 401: no")

    refused = "Fake at home refused disk on host:"
    assert caplog.messages == [
        f"{refused} CRIT, : HTTP 401: no",
        f"{refused} WARN, : HTTP 401: no",
        f"{refused} CRIT, : HTTP 401: no",
    ]
    assert states.counters() == {"waiting": 0, "sent": 2, "refused": 4, "dropped": 0}


def test_without_alerts_stopping_starts_no_thread(outbox: Outbox) -> None:
    outbox.start()
    outbox.request_stop()

    assert outbox._thread is None


def test_stopping_sends_what_is_waiting(outbox: Outbox, backend: FakeBackend) -> None:
    backend.released.clear()
    for one in alerts(50):
        outbox.put(one)
    outbox.request_stop()
    backend.released.set()

    assert outbox.join(30)
    assert backend.posted == alerts(50)
    assert outbox.running_threads() == []


def test_stopping_tries_an_unavailable_backend_once_more_and_logs_what_is_left(
    make_outbox: MakeOutbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = make_outbox(retry=(60.0, 60.0))
    backend.answer = TryLater("connection refused")
    outbox.put(alert("x"))
    wait_for(lambda: caplog.messages)
    outbox.request_stop()

    assert outbox.join(30)
    assert backend.posted == [alert("x")] * 2
    assert caplog.messages == [
        "Fake at home is unavailable, retrying: connection refused",
        "1 alerts were not delivered to Fake at home",
    ]


def test_an_attempt_in_progress_at_the_stop_is_not_the_last_one(
    outbox: Outbox, backend: FakeBackend
) -> None:
    backend.released.clear()
    backend.answer = TryLater("HTTP 503")
    outbox.put(alert("x"))
    wait_for(lambda: backend.posted)
    outbox.request_stop()
    backend.released.set()

    assert outbox.join(30)
    assert backend.posted == [alert("x")] * 2


def test_after_the_stop_an_alert_is_dropped(
    outbox: Outbox, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.request_stop()
    assert outbox.join(30)
    outbox.put(alert("late"))

    assert outbox.counters()["waiting"] == 0
    assert backend.posted == []
    assert caplog.messages == [f"Dropped {alert('late')}: the daemon has stopped"]


def test_join_does_not_wait_for_a_backend_that_hangs(outbox: Outbox, backend: FakeBackend) -> None:
    backend.released.clear()
    outbox.put(alert("x"))
    wait_for(lambda: backend.posted)
    outbox.request_stop()

    assert not outbox.join(0.01)
    assert [thread.name for thread in outbox.running_threads()] == ["fake"]


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_without_a_thread_an_alert_waits_and_the_next_one_starts_it(
    outbox: Outbox,
    backend: FakeBackend,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for one in alerts(2):
            outbox.put(one)
        assert outbox.counters()["waiting"] == 2
    outbox.put(alert("2"))
    wait_for_sent(outbox, 3)

    assert backend.posted == alerts(3)
    assert caplog.messages == [NO_THREAD, "Sending alerts again"]


@pytest.mark.parametrize("error", [MemoryError(), ImportError("no ssl"), SystemExit(1)])
def test_a_thread_that_has_died_is_started_again_by_the_next_alert(
    outbox: Outbox,
    backend: FakeBackend,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    caplog.set_level(logging.INFO)
    backend.connect_error = error
    for one in alerts(2):
        outbox.put(one)
        wait_for(lambda: outbox._thread is None)
    backend.connect_error = None
    outbox.put(alert("2"))
    wait_for_sent(outbox, 3)

    assert backend.posted == alerts(3)
    assert caplog.messages == [
        f"Cannot send alerts; the next alert retries: {error_text(error)}",
        "Sending alerts again",
    ]


def test_without_a_thread_stopping_tries_once_more(
    outbox: Outbox, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outbox.put(alert("x"))
    outbox.request_stop()

    assert outbox.join(30)
    assert backend.posted == [alert("x")]


def test_stopping_without_a_thread_names_what_is_left(
    outbox: Outbox, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outbox.put(alert("x"))
        outbox.request_stop()
        assert outbox.join(30)

    assert caplog.messages == [NO_THREAD, "1 alerts were not delivered to Fake at home"]
