from __future__ import annotations

import logging
import math
import re
import threading

import pytest

from daemonkit.runtime.failures import MAX_LOCATIONS, FailureLog, LimitedLogger
from daemonkit.system.handling import Handled, handled_now, noted

from ..clock import Clock

LOGGER = logging.getLogger("test")


def failure(text: str, kind: type[BaseException] = ValueError) -> BaseException:
    try:
        raise kind(text)
    except BaseException as error:
        return error


def elsewhere(text: str) -> BaseException:
    try:
        raise ValueError(text)
    except BaseException as error:
        return error


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wakes() -> list[int]:
    return []


@pytest.fixture
def failures(clock: Clock, wakes: list[int]) -> FailureLog:
    return FailureLog(LOGGER, lambda: wakes.append(1), clock=clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, with a + for a traceback, and without the places."""
    found = [
        re.sub(rf" at {re.escape(__file__)}:\d+,", ",", record.getMessage())
        + ("+" if record.exc_info else "")
        for record in caplog.records
    ]
    caplog.clear()
    return found


def test_the_first_failure_is_logged_in_full_and_the_rest_every_ten_seconds(
    failures: FailureLog, clock: Clock, wakes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    logged = [
        failures.log(failure(f"no {n}"), "It failed", f" on {n}", "; alas") for n in range(1533)
    ]

    assert logged == [True] + [False] * 1532
    assert lines(caplog) == ["It failed on 0; alas+"]
    assert wakes == [1]
    assert failures.run_due(clock.now) == clock.now + 10
    clock.now += 10
    assert failures.run_due(clock.now) == math.inf
    assert lines(caplog) == [
        "It failed: 1,532 more in the last 10 s, last on 1532: ValueError: no 1532"
    ]
    failures.log(failure("later"), "It failed")
    assert lines(caplog) == []
    clock.now += 25
    failures.log(failure("even later"), "It failed")
    assert lines(caplog) == ["It failed: 1 more in the last 25 s, last: ValueError: later"]


def test_after_a_quiet_minute_a_failure_is_logged_in_full_again(
    failures: FailureLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for pause in (59, 59, 60, 0):
        failures.log(failure("a"), "It failed")
        failures.flush()
        clock.now += pause

    again = "It failed: 1 more in the last 59 s, last: ValueError: a"
    assert lines(caplog) == ["It failed+", again, again, "It failed+"]


def test_faults_without_an_exception_are_told_apart_by_their_kinds(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        failures.report(logging.WARNING, "UDP", f"invalid {number}", "invalid")
        failures.report(logging.ERROR, "UDP", kind="dropped")
    failures.flush()

    assert [record.levelname for record in caplog.records] == ["WARNING", "ERROR"] * 2
    assert lines(caplog) == [
        *("UDP: invalid 0", "UDP"),
        *("UDP: 2 more in the last 1 s, last: invalid 2", "UDP: 2 more in the last 1 s"),
    ]


def test_a_fault_that_is_forgotten_is_logged_in_full_again(
    failures: FailureLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        failures.log(failure("a"), "It failed")
    failures.forget()
    assert failures.run_due(clock.now + 60) == math.inf
    failures.log(failure("a"), "It failed")

    assert lines(caplog) == ["It failed+", "It failed+"]


def test_exceptions_that_other_code_logs_are_limited_and_its_other_lines_are_not(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    logger = LimitedLogger(LOGGER, failures, "Serving failed")
    for number in range(2):
        logger.warning("hm")
        try:
            raise ValueError(number)
        except ValueError:
            logger.exception("for %d", number)
    failures.flush()

    assert lines(caplog) == [
        *("hm", "Serving failed (for 0)+", "hm"),
        "Serving failed: 1 more in the last 1 s, last (for 1): ValueError: 1",
    ]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (elsewhere("a"), "It failed"),
        (failure("a", TypeError), "It failed"),
        (ValueError("never raised"), "It failed"),
        (failure("a"), "Something else failed"),
    ],
    ids=["line", "type", "nowhere", "what"],
)
def test_another_location_is_logged_in_full(
    failures: FailureLog, error: BaseException, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    failures.log(failure("a"), "It failed")
    lines(caplog)
    failures.log(error, what)
    failures.log(error, what)
    failures.log(failure("b"), "It failed")
    failures.flush()

    assert lines(caplog) == [
        f"{what}+",
        "It failed: 1 more in the last 1 s, last: ValueError: b",
        f"{what}: 1 more in the last 1 s, last: {type(error).__name__}: {error}",
    ]


def test_flush_logs_what_is_counted_and_does_not_begin_anew(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        failures.log(failure("a"), "It failed")
    failures.flush()
    failures.flush()
    failures.log(failure("a"), "It failed")

    assert lines(caplog) == ["It failed+", "It failed: 2 more in the last 1 s, last: ValueError: a"]


def test_the_number_of_locations_is_bounded(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2 * MAX_LOCATIONS):
        for _ in range(2):
            failures.log(failure("a"), f"{number} failed")

    assert len(failures._repeats) == MAX_LOCATIONS
    assert lines(caplog)[-2:] == [
        f"{MAX_LOCATIONS - 1} failed: 1 more in the last 1 s, last: ValueError: a",
        f"{2 * MAX_LOCATIONS - 1} failed+",
    ]


def test_failures_of_many_threads_are_all_counted(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        for _ in range(500):
            failures.log(failure("a"), "It failed")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures.flush()

    assert lines(caplog) == [
        "It failed+",
        "It failed: 1,999 more in the last 1 s, last: ValueError: a",
    ]


def test_the_line_about_repeats_shows_what_the_last_one_was_about(
    failures: FailureLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Handled | None] = []
    monkeypatch.setattr(LOGGER, "handle", lambda _: shown.append(handled_now()))
    events = [Handled(id, id, None) for id in range(4)]
    for event in events[:3]:
        with noted(event):
            failures.report(logging.ERROR, "It failed")
    # Some other thread may notice that it is due, which handles something else.
    clock.now += 10
    with noted(events[3]):
        failures.report(logging.ERROR, "It failed")
    clock.now += 10
    failures.run_due(clock.now)

    assert shown == [events[0], events[2], events[3]]
