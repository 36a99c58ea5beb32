from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from daemonkit.supervision.failure import Location, SlaveFailure, locate


def raised_by(work: Callable[[], Any]) -> BaseException:
    try:
        work()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def work() -> None:
    int("x" * int("1"))


def elsewhere() -> None:
    raise ValueError("no")


LINE = work.__code__.co_firstlineno + 1


def test_an_error_is_located_in_the_file_of_the_work() -> None:
    def parse() -> None:
        # Its last frame is in the standard library.
        datetime.strptime("x", "%Y")

    location = locate(raised_by(parse), parse)

    assert location == Location(__file__, parse.__code__.co_firstlineno + 2, "parse")


def test_the_deepest_line_of_that_file_counts() -> None:
    def outer() -> None:
        work()

    assert locate(raised_by(outer), outer) == Location(__file__, LINE, "work")


def test_an_error_from_other_files_has_the_deepest_line_of_all() -> None:
    location = locate(raised_by(elsewhere), threading.Event().wait)

    assert location is not None
    assert location.function == "elsewhere"


def test_an_error_without_a_traceback_has_no_location() -> None:
    failure = SlaveFailure.of(ValueError("no"), work)

    assert failure.location is None
    assert failure.status()["place"] == ""


def test_the_status_shows_error_time_and_place() -> None:
    failure = SlaveFailure("ValueError: no", datetime(2018, 2, 1, 18, 41), Location("a.py", 3, "f"))

    assert failure.status() == {
        "error": "ValueError: no",
        "time": "2018-02-01 18:41:00.000000",
        "place": "a.py:3 in f",
    }


def test_without_memory_for_the_text_the_failure_is_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> str:
        raise MemoryError

    monkeypatch.setattr("daemonkit.supervision.failure.error_text", refuse)
    failure = SlaveFailure.of(raised_by(work), work)

    assert (failure.error, failure.location) == ("ValueError", None)
