from __future__ import annotations

import logging
import math
import re
import threading

import pytest

from daemonkit.runtime.failures import MAX_LOCATIONS, FailureLog

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
    return FailureLog(LOGGER, lambda: wakes.append(1), interval=60, clock=clock)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, with a + for a traceback, and without the places."""
    found = [
        re.sub(rf" at {re.escape(__file__)}:\d+,", ",", record.getMessage())
        + ("+" if record.exc_info else "")
        for record in caplog.records
    ]
    caplog.clear()
    return found


def test_the_first_failure_is_logged_in_full_and_the_rest_once_a_minute(
    failures: FailureLog, clock: Clock, wakes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    logged = [failures.log(failure(f"no {n}"), "It failed", f" on {n}", "; alas") for n in range(9)]

    assert logged == [True] + [False] * 8
    assert lines(caplog) == ["It failed on 0; alas+"]
    assert wakes == [1]
    assert failures.run_due(clock.now) == clock.now + 60
    clock.now += 60
    assert failures.run_due(clock.now) == math.inf
    assert lines(caplog) == ["It failed 8 more times, last on 8: ValueError: no 8"]
    failures.log(failure("later"), "It failed")
    assert lines(caplog) == []
    clock.now += 60
    failures.log(failure("even later"), "It failed")
    assert lines(caplog) == ["It failed 1 more time, last: ValueError: later"]


def test_after_a_quiet_minute_a_failure_is_logged_in_full_again(
    failures: FailureLog, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failures.log(failure("a"), "It failed")
    clock.now += 60
    failures.log(failure("b"), "It failed")

    assert lines(caplog) == ["It failed+", "It failed+"]


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
        "It failed 1 more time, last: ValueError: b",
        f"{what} 1 more time, last: {type(error).__name__}: {error}",
    ]


def test_flush_logs_what_is_counted_and_does_not_begin_anew(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        failures.log(failure("a"), "It failed")
    failures.flush()
    failures.flush()
    failures.log(failure("a"), "It failed")

    assert lines(caplog) == ["It failed+", "It failed 2 more times, last: ValueError: a"]


def test_the_number_of_locations_is_bounded(
    failures: FailureLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2 * MAX_LOCATIONS):
        for _ in range(2):
            failures.log(failure("a"), f"{number} failed")

    assert len(failures._repeats) == MAX_LOCATIONS
    assert lines(caplog)[-2:] == [
        f"{MAX_LOCATIONS - 1} failed 1 more time, last: ValueError: a",
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

    assert lines(caplog) == ["It failed+", "It failed 1999 more times, last: ValueError: a"]
