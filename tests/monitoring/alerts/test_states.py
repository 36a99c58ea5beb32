from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest

from daemonkit.monitoring.alerts.alert import Alert
from daemonkit.monitoring.alerts.states import MOST_SERVICES, AlertStates
from daemonkit.text import LONGEST_TEXT

from ...clock import Clock

LOGGER = logging.getLogger("test")
REFRESH, HOLD = 60.0, 10.0
EPOCH = datetime(2026, 11, 26, 20, tzinfo=timezone.utc)


class Service:
    """The states, with a clock that is moved by hand.

    sent: service, status, previous status and description of each alert; wakes: how often the timer
    was woken.
    """

    def __init__(self) -> None:
        self.clock = Clock(0.0)
        self.alerts: list[Alert] = []
        self.wakes = 0
        self.states = AlertStates(
            "web-1",
            LOGGER,
            lambda text: text.replace("hush", "*"),
            clock=self.clock,
            now=lambda: EPOCH + timedelta(seconds=self.clock.now),
        )

    def open(self, hold: float = HOLD) -> Service:
        def wake() -> None:
            self.wakes += 1

        self.states.open([self.alerts.append], REFRESH, hold, wake)
        return self

    def at(self, now: float, status: str | None = None, description: str = "") -> float:
        """Let it be `now`, and report a status; returns when something is due."""
        self.clock.now = now
        due = self.states.run_due(now)
        if status is not None:
            self.states.report("disk", status, description)
            due = self.states.run_due(now)
        return due

    @property
    def sent(self) -> list[tuple[str, str | None]]:
        """The status and the previous one of each alert."""
        return [(alert.status, alert.previous) for alert in self.alerts]


@pytest.fixture
def service() -> Service:
    return Service().open()


def test_a_change_is_sent_at_once_and_what_stays_the_same_is_not(service: Service) -> None:
    service.at(1.0, "WARN", "90 %")
    service.at(2.0, "WARN", "91 %")
    service.at(3.0, "CRIT", "99 %")

    assert service.alerts == [
        Alert("web-1", "disk", "WARN", "90 %", EPOCH + timedelta(seconds=1), None),
        Alert("web-1", "disk", "CRIT", "99 %", EPOCH + timedelta(seconds=3), "WARN"),
    ]


def test_what_is_not_ok_is_repeated_with_its_newest_description(service: Service) -> None:
    assert service.at(1.0, "CRIT", "99 %") == 61.0
    service.at(30.0, "CRIT", "98 %")
    assert service.at(60.9) == 61.0
    assert service.at(61.0) == 121.0
    service.at(121.0)

    since = EPOCH + timedelta(seconds=1)
    assert service.alerts[1:] == [
        Alert("web-1", "disk", "CRIT", "98 %", since, "CRIT"),
        Alert("web-1", "disk", "CRIT", "98 %", since, "CRIT"),
    ]


def test_the_first_ok_is_sent_and_ok_is_not_repeated(service: Service) -> None:
    assert service.at(1.0, "OK") == math.inf
    service.at(1000.0, "OK")

    assert service.sent == [("OK", None)]


def test_a_better_status_is_sent_once_it_has_lasted(service: Service) -> None:
    service.at(1.0, "CRIT")
    assert service.at(5.0, "WARN") == 15.0
    service.at(14.9, "WARN")
    assert service.sent == [("CRIT", None)]
    service.at(15.0)
    assert service.at(20.0, "OK") == 30.0
    assert service.at(30.0) == math.inf

    assert service.sent == [("CRIT", None), ("WARN", "CRIT"), ("OK", "WARN")]
    assert service.alerts[1].since == EPOCH + timedelta(seconds=5)


def test_one_that_flaps_is_sent_once(service: Service) -> None:
    for second in range(1, 50, 2):
        service.at(second, "CRIT", "down")
        service.at(second + 1, "OK", "up")
    assert service.sent == [("CRIT", None)]
    service.at(60.0)

    assert service.sent == [("CRIT", None), ("OK", "CRIT")]


def test_while_a_better_status_is_held_back_the_old_one_is_repeated(service: Service) -> None:
    service.at(1.0, "CRIT", "down")
    service.at(55.0, "OK", "up")
    assert service.at(61.0) == 65.0
    service.at(62.0, "CRIT", "down again")
    service.at(121.0)

    assert [(alert.status, alert.description) for alert in service.alerts] == [
        ("CRIT", "down"),
        ("CRIT", "down"),
        ("CRIT", "down again"),
    ]
    assert {alert.since for alert in service.alerts} == {EPOCH + timedelta(seconds=1)}


def test_without_a_hold_every_change_is_sent_at_once() -> None:
    service = Service().open(hold=0)
    for second, status in enumerate(["CRIT", "OK", "CRIT", "WARN"]):
        service.at(second, status)

    assert service.sent == [("CRIT", None), ("OK", "CRIT"), ("CRIT", "OK"), ("WARN", "CRIT")]


def test_services_have_states_of_their_own(service: Service) -> None:
    service.states.report("load", "WARN", "")
    service.at(1.0, "CRIT")
    assert service.at(2.0) == 60.0
    service.states.report("load", "OK", "")
    service.at(12.0)

    assert [(alert.service, alert.status) for alert in service.alerts] == [
        ("load", "WARN"),
        ("disk", "CRIT"),
        ("load", "OK"),
    ]


def test_before_the_start_the_last_status_of_each_service_is_kept() -> None:
    service = Service()
    service.at(1.0, "CRIT", "down")
    service.at(2.0, "OK", "up")
    service.states.report("load", "WARN", "busy")
    assert service.alerts == []
    service.open()

    assert [(alert.service, alert.status, alert.description) for alert in service.alerts] == [
        ("disk", "OK", "up"),
        ("load", "WARN", "busy"),
    ]
    assert service.alerts[1].since == EPOCH + timedelta(seconds=2)


def test_at_the_stop_what_is_held_back_is_sent_and_what_is_active_stays(service: Service) -> None:
    service.at(1.0, "CRIT")
    service.states.report("load", "WARN", "")
    service.at(2.0, "OK")
    service.states.finish()

    assert service.sent == [("CRIT", None), ("WARN", None), ("OK", "CRIT")]
    assert service.at(1000.0) == math.inf
    service.at(1001.0, "CRIT")
    service.at(1002.0, "OK")
    assert service.sent[3:] == [("CRIT", "OK"), ("OK", "CRIT")]


def test_the_last_word_is_sent_at_once_and_nothing_comes_after_it(service: Service) -> None:
    service.at(1.0, "CRIT", "99 %")
    service.states.report("disk", "CRIT", "gone", is_last=True)
    service.states.report("tape", "CRIT", "gone", is_last=True)
    service.at(2.0, "OK")
    service.states.report("tape", "OK", "")
    service.states.finish()

    assert [(alert.service, alert.description) for alert in service.alerts] == [
        ("disk", "99 %"),
        ("disk", "gone"),
        ("tape", "gone"),
    ]


def test_after_the_stop_an_alert_is_ignored_with_a_line_in_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.states.close()
    service.at(1.0, "CRIT")

    assert service.alerts == []
    assert caplog.messages == ["Ignored the alert disk: the daemon has stopped"]


def test_wrong_arguments_are_refused_at_the_call(service: Service) -> None:
    report = service.states.report
    with pytest.raises(ValueError, match=r"^an alert's status is one of OK, .*, not 'BAD' \(str\)"):
        report("disk", "BAD", "")
    with pytest.raises(ValueError, match="^the service of an alert must not be empty$"):
        report("", "OK", "")
    with pytest.raises(
        TypeError, match=r"^the service of an alert must be a string, not None \(No"
    ):
        report(None, "OK", "")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^the description of an alert must be a string, not 1 \("):
        report("disk", "OK", 1)  # type: ignore[arg-type]

    assert service.alerts == []


def test_texts_are_redacted_bounded_and_encodable(service: Service) -> None:
    service.at(1.0, "CRIT", "hush \udcff" + "x" * LONGEST_TEXT)
    service.states.report("hush", "WARN", "")

    assert service.alerts[0].description.startswith("* \\udcffxxx")
    assert len(service.alerts[0].description) < LONGEST_TEXT + 20
    assert service.alerts[1].service == "*"


def test_what_is_not_ok_is_active(service: Service) -> None:
    service.at(1.0, "CRIT", "down")
    service.states.report("load", "OK", "")
    service.at(2.0, "CRIT", "still down")
    since = (EPOCH + timedelta(seconds=1)).astimezone().strftime("%Y-%m-%d %H:%M:%S.000000")

    expected = {"service": "disk", "status": "CRIT", "description": "still down", "since": since}
    assert service.states.active() == [{**expected, "resolving": False}]
    service.at(3.0, "OK")
    assert service.states.active() == [{**expected, "resolving": True}]
    service.at(13.0)
    assert service.states.active() == []


def test_changes_are_logged_but_not_repetitions_nor_the_first_ok(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    service.at(1.0, "OK", "fine")
    service.at(2.0, "CRIT", "down")
    service.at(70.0)
    service.at(71.0, "OK", "up")
    service.at(81.0)

    assert caplog.messages == ["Alert disk: CRIT, down", "Alert disk: OK, up"]


def test_only_a_change_wakes_the_timer(service: Service) -> None:
    for now, status, wakes in (
        (1.0, "OK", 1),
        (2.0, "OK", 1),
        (3.0, "CRIT", 2),
        (4.0, "CRIT", 2),
        (5.0, "OK", 3),
    ):
        service.at(now, status)
        assert service.wakes == wakes


def test_with_too_many_services_one_that_is_ok_makes_room(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.states.report("fine", "OK", "")
    for number in range(MOST_SERVICES + 1):
        service.states.report(str(number), "WARN", "")
    service.states.report("another", "WARN", "")

    kept = [str(number) for number in range(MOST_SERVICES)]
    assert [alert.service for alert in service.alerts] == ["fine", *kept]
    assert [alert["service"] for alert in service.states.active()] == kept
    assert caplog.messages == ["More than 1000 services have alerts; ignoring more"]


@contextmanager
def alerting_handler(states: AlertStates) -> Iterator[None]:
    """A log handler that reports an alert for each line."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            states.report("log", "WARN", record.getMessage())

    handler = Handler()
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


def test_a_log_handler_may_report_an_alert(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with alerting_handler(service.states):
        service.at(1.0, "CRIT", "down")

    assert [(alert.service, alert.description) for alert in service.alerts] == [
        ("disk", "down"),
        ("log", "Alert disk: CRIT, down"),
    ]
