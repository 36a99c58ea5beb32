from __future__ import annotations

import asyncio
import logging

import pytest

from daemonkit.supervision.slave import SlaveSpec
from daemonkit.supervision.slave_log import SlaveLog

from ..clock import Clock


@pytest.fixture(autouse=True)
def _level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, *, critical: bool = True) -> SlaveLog:
    spec = SlaveSpec("work", critical=critical, timeout=2)
    return SlaveLog(logging.getLogger("test"), spec, clock)


def test_calls_that_fail_with_the_same_error_are_logged_once_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    log = make(clock)
    log.call_failed(ValueError("a"), "ValueError: a", is_repeated=False)
    for _ in range(60):
        clock.now += 1
        log.call_failed(ValueError("a"), "ValueError: a", is_repeated=True)
    clock.now += 1
    log.call_failed(ValueError("b"), "ValueError: b", is_repeated=False)
    log.call_succeeded()

    assert caplog.messages == [
        "The slave work failed; it is called again as scheduled",
        "The slave work still fails (60 more times): ValueError: a",
        "The slave work failed; it is called again as scheduled",
        "The slave work works again",
    ]
    assert [bool(record.exc_info) for record in caplog.records] == [True, False, True, False]


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
        f"The slave work {what}",
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
    make(clock).gave_up("too often")
    make(clock, critical=False).gave_up("too often")

    assert caplog.messages == [
        "The slave work gave up: too often; the daemon stops",
        "The slave work gave up: too often; it stays down",
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


def test_a_new_error_restarts_the_minute(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    log = make(clock)
    log.call_failed(ValueError("a"), "ValueError: a", is_repeated=False)
    clock.now += 30
    log.call_failed(ValueError("b"), "ValueError: b", is_repeated=False)
    clock.now += 31
    log.call_failed(ValueError("b"), "ValueError: b", is_repeated=True)

    assert len(caplog.messages) == 2
