from __future__ import annotations

import asyncio
import logging
import re

import pytest

from daemonkit import Done
from daemonkit.supervision.slave_log import SlaveLog
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.text import error_text

from ..clock import Clock


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock) -> SlaveLog:
    spec = SlaveSpec("work", timeout=2)
    return SlaveLog(logging.getLogger("test"), spec, lambda: None, clock)


def failure(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_calls_that_fail_at_one_place_are_logged_every_ten_seconds_whatever_the_text(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    for number in range(13):
        log.call_failed(failure(f"error {number}"))
        log.run_due(clock.now)
        clock.now += 1
    log.call_succeeded()
    log.call_succeeded()

    messages = [re.sub(r" at \S+test_slave_log.py:\d+,", ",", m) for m in caplog.messages]
    assert messages == [
        "The slave work failed; it is called again as scheduled",
        "The slave work failed: 9 more in the last 10 s, last: ValueError: error 9",
        "The slave work failed: 3 more in the last 3 s, last: ValueError: error 12",
        "The slave work works again",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False, False]


def test_a_slave_that_fails_every_other_time_does_not_fill_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    for number in range(12):
        log.call_failed(failure(f"error {number}"))
        clock.now += 1
        log.call_succeeded()
        clock.now += 1
        log.run_due(clock.now)

    assert [re.sub(r" at \S+:\d+,", ",", message) for message in caplog.messages] == [
        "The slave work failed; it is called again as scheduled",
        "The slave work works again",
        "The slave work failed: 4 more in the last 10 s, last: ValueError: error 4",
        "The slave work failed: 5 more in the last 10 s, last: ValueError: error 9",
    ]


def test_a_crash_loop_has_one_traceback_and_a_line_for_each_restart(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    for number, delay in enumerate([1.0, 2.0, None], 1):
        log.exited(failure(f"error {number}"), number, delay, expected=False)
        clock.now += delay or 0

    assert [re.sub(r" at \S+test_slave_log.py:\d+", "", m) for m in caplog.messages] == [
        "The slave work failed; restart 1 in 1 s",
        "The slave work failed; restart 2 in 2 s: ValueError: error 2",
        "The slave work failed: ValueError: error 3",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, False]


def test_a_crash_loop_without_a_wait_does_not_fill_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    for number in range(1000):
        log.exited(failure(f"error {number}"), number + 1, 0.0, expected=False)
    log.exited(None, 0, None, expected=True)

    messages = [re.sub(r" at \S+test_slave_log.py:\d+", "", m) for m in caplog.messages]
    assert messages[:2] == [
        "The slave work failed; restart 1 in 0 s",
        "The slave work failed; restart 2 in 0 s: ValueError: error 1",
    ]
    assert messages[10:] == [
        "The slave work failed: 990 more in the last 1 s, last: ValueError: error 999"
    ]


def test_an_exit_status_that_changes_each_time_does_not_fill_the_log(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    for number in range(100):
        try:
            raise SystemExit(number)
        except SystemExit as error:
            log.call_failed(error)

    assert caplog.messages == [
        "The slave work raised SystemExit(0); it is called again as scheduled"
    ]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (ValueError("no"), "failed"),
        (MemoryError(), "ran out of memory"),
        (SystemExit(3), "raised SystemExit(3), which ends the slave and not the daemon"),
        (KeyboardInterrupt(), "raised KeyboardInterrupt, which ends the slave and not the daemon"),
        (asyncio.CancelledError(), "raised CancelledError"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("expected", [True, False])
def test_an_exit_by_an_exception_is_always_logged(
    clock: Clock,
    error: BaseException,
    what: str,
    expected: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = make(clock)
    log.exited(error, 2, 0.25, expected=expected)
    log.exited(error, 2, None, expected=expected)

    assert caplog.messages == [
        f"The slave work {what}; restart 2 in 0.25 s",
        f"The slave work {what}: {error_text(error)}",
    ]
    assert {record.levelname for record in caplog.records} == {"ERROR"}


def test_a_return_is_logged_unless_it_was_expected(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    log.exited(None, 1, None, expected=True)
    log.exited(None, 1, None, expected=False)
    log.exited(None, 1, 4, expected=False)

    assert caplog.messages == [
        "The slave work returned",
        "The slave work returned; restart 1 in 4 s",
    ]


def test_giving_up_names_the_reason_and_the_consequence(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    make(clock).gave_up("too often", stops_daemon=True)
    make(clock).gave_up("too often", stops_daemon=False)

    assert caplog.messages == [
        "The slave work gave up: too often; the daemon stops",
        "The slave work gave up: too often; it stays down",
    ]


def test_a_slave_that_is_done_may_say_more(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    make(clock).done(Done())
    make(clock).done(Done("400 rows imported"))

    assert caplog.messages == [
        "The slave work is done",
        "The slave work is done: 400 rows imported",
    ]


def test_a_stall_is_logged_with_the_stack_and_so_is_its_end(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    log.stalled(2.5, "the stack\n")
    log.recovered(3)

    assert caplog.messages == [
        "The slave work is stalled: no heartbeat for 2.5 s (timeout 2 s); its stack:\nthe stack\n",
        "The slave work recovered after 3 s",
    ]
