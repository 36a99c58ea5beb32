from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from daemonkit.events.durable.faults import Fault, FileFaults

from ...clock import Clock
from .helpers import LOGGER


@pytest.fixture
def changes() -> list[bool]:
    return []


@pytest.fixture
def faults(changes: list[bool], caplog: pytest.LogCaptureFixture) -> FileFaults:
    caplog.set_level("INFO")
    return FileFaults("events.db", LOGGER, lambda: changes.append(True))


BROKEN = sqlite3.OperationalError("disk I/O error")


@pytest.mark.parametrize(
    ("begin", "end", "text", "over"),
    [
        (
            lambda faults: faults.read_failed(BROKEN),
            lambda faults: faults.unreadable.end(),
            "the event queue's file can't be read: disk I/O error (events.db)",
            "The event queue's file can be read again",
        ),
        (
            lambda faults: faults.write_failed(BROKEN),
            lambda faults: faults.unwritable.end(),
            "the event queue's file can't be written: disk I/O error (events.db)",
            "The event queue's file can be written again",
        ),
        (
            FileFaults.disk_is_full,
            lambda faults: faults.disk_full.end(),
            "the disk of the event queue is full (events.db)",
            "The disk of the event queue has space again",
        ),
    ],
)
def test_a_fault_is_reported_at_its_beginning_and_its_end(
    faults: FileFaults,
    changes: list[bool],
    caplog: pytest.LogCaptureFixture,
    begin: Callable[[FileFaults], Any],
    end: Callable[[FileFaults], None],
    text: str,
    over: str,
) -> None:
    end(faults)
    assert changes == []
    for _ in range(3):
        begin(faults)
    assert [problem.text for problem in faults.problems()] == [text]
    end(faults)
    end(faults)

    assert faults.problems() == []
    assert caplog.messages == [text[0].upper() + text[1:], over]
    assert len(changes) == 2


def test_a_fault_that_lasts_is_counted_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    fault, clock = Fault(LOGGER, "over", lambda: None), Clock()
    fault._failures._clock = clock
    for _ in range(22):
        fault.report("no")
        clock.now += 1

    assert caplog.messages == ["No", "No: 9 more in the last 10 s", "No: 10 more in the last 10 s"]


def test_a_refusal_says_why_and_when_to_try_again(faults: FileFaults) -> None:
    assert faults.lost.refusal is None
    refusal = faults.file_is_lost("events.db was removed")

    message = "Events.db was removed: the event queue refuses events until a restart"
    assert (str(refusal), refusal.retry_after) == (message, 5)
    assert str(faults.lost.refusal) == message


def test_only_a_full_disk_is_tolerable(faults: FileFaults) -> None:
    faults.disk_is_full()
    faults.write_failed(BROKEN)

    assert [problem.tolerable for problem in faults.problems()] == [True, False]


def test_a_bug_is_logged_with_its_traceback(
    faults: FileFaults, caplog: pytest.LogCaptureFixture
) -> None:
    faults.write_failed(BROKEN)
    faults.write_failed(ValueError("no"))

    assert [record.exc_info is None for record in caplog.records] == [True, False]
    assert caplog.records[1].levelno == logging.ERROR
    assert "can't be written: ValueError: no (events.db)" in caplog.messages[1]
