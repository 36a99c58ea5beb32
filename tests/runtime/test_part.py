from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from daemonkit.runtime.part import ThreadedPart


class Work(ThreadedPart):
    """Runs until a test lets its thread end."""

    def __init__(self) -> None:
        super().__init__("work", "the worker")
        self.end = threading.Event()

    def _run(self) -> None:
        self.end.wait()


@pytest.fixture
def part() -> Iterator[Work]:
    part = Work()
    yield part
    part.end.set()
    assert part.join(10)


def test_the_thread_has_the_part_s_name_and_is_listed_while_it_runs(part: Work) -> None:
    assert part.running_threads() == []
    part.start()
    assert [(thread.name, thread.daemon) for thread in part.running_threads()] == [("work", True)]
    part.end.set()
    assert part.join(10)
    assert part.running_threads() == []


def test_join_returns_whether_the_thread_has_ended(part: Work) -> None:
    assert part.join(0)
    part.start()
    assert not part.join(0)
    part.end.set()
    assert part.join(10)


def test_a_thread_that_died_is_a_problem(part: Work) -> None:
    assert part.problems() == []
    part.start()
    assert part.problems() == []
    part.end.set()
    part.join(10)
    assert [(p.text, p.tolerable) for p in part.problems()] == [
        ("the worker is not running", False)
    ]


def test_a_thread_that_ended_after_a_stop_request_is_not_a_problem(part: Work) -> None:
    part.start()
    part.request_stop()
    part.end.set()
    part.join(10)

    assert part.problems() == []
