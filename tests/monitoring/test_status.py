from __future__ import annotations

import json
import logging
from datetime import datetime
from decimal import Decimal
from enum import IntEnum
from typing import Any

import pytest

from daemonkit import Secret
from daemonkit.monitoring.status import MAX_DEPTH, Gatherer, jsonable


class Exits:
    def __str__(self) -> str:
        raise SystemExit(3)


class Unreadable(dict[str, Any]):
    def items(self) -> Any:
        raise KeyError("gone")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


class Talkative:
    def __str__(self) -> str:
        return "hush"


class Level(IntEnum):
    HIGH = 3


class Ratio(float):
    def __str__(self) -> str:
        return "a ratio"


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no")


def circle() -> dict[str, Any]:
    made: dict[str, Any] = {}
    made["self"] = [made]
    return made


def deep(levels: int) -> Any:
    made: Any = "bottom"
    for _ in range(levels):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, 2.5, None, True, "x"]}, {"a": [1, 2.5, None, True, "x"]}),
        ((1, 2), [1, 2]),
        ({1: 2, None: 3}, {"1": 2, "None": 3}),
        (datetime(2018, 2, 1, 18, 41, 37), "2018-02-01 18:41:37"),
        ({1}, "{1}"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Decimal("1.10"), "1.10"),
        (b"x", "b'x'"),
        (Secret("hush"), "*** HIDDEN ***"),
        (Level.HIGH, 3),
        (Ratio(0.5), 0.5),
        (Ratio("inf"), "inf"),
        (Talkative(), "*"),
        ("say hush", "say *"),
        ({"hush": 1}, {"*": 1}),
        ({"hush": 1, "*": 2, "a": 3}, {"*": 1, "* (2)": 2, "a": 3}),
        pytest.param(10**5000, "(a number of 16610 bits)", id="huge"),
        (Unprintable(), "(Unprintable that can't be shown: RuntimeError)"),
        ({"a": Exits(), "b": 1}, {"a": "(Exits that can't be shown: SystemExit)", "b": 1}),
        ([Unreadable(), 2], ["(Unreadable that can't be shown: KeyError)", 2]),
        (circle(), {"self": ["(contains itself)"]}),
        ("\ud800", "\ud800"),
    ],
)
def test_everything_becomes_json(value: Any, shown: Any) -> None:
    result = jsonable(value, lambda text: text.replace("hush", "*"))

    assert result == shown
    assert json.loads(json.dumps(result, allow_nan=False)) == shown
    assert type(result) is type(shown)


def test_values_nested_too_deeply_become_text() -> None:
    shown = jsonable(deep(50_000), str)
    for _ in range(MAX_DEPTH):
        (shown,) = shown

    assert isinstance(shown, str)


def test_a_value_used_twice_is_not_a_cycle() -> None:
    shared = [1]
    assert jsonable([shared, shared], str) == [[1], [1]]


def test_a_failing_call_is_shown_in_place_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    gatherer = Gatherer(logging.getLogger("test"))
    assert gatherer.call("field x", lambda: 5) == 5
    results = [gatherer.call("field x", lambda: 1 / 0, lambda: {"name": "x"}) for _ in range(3)]
    back = [gatherer.call("field x", lambda: 5) for _ in range(2)]

    assert results == [{"name": "x", "error": "ZeroDivisionError: division by zero"}] * 3
    assert back == [5, 5]
    assert [entry.getMessage() for entry in caplog.records] == [
        "field x failed; /status shows the error instead",
        "field x works again",
    ]


def test_a_call_that_fails_every_other_time_does_not_fill_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    gatherer = Gatherer(logging.getLogger("test"))
    for number in range(100):
        gatherer.call("field x", lambda number=number: 1 / (number % 2))  # type: ignore[misc]
    gatherer._failures.flush()

    first, works, repeated = caplog.messages
    assert (first, works) == (
        "field x failed; /status shows the error instead",
        "field x works again",
    )
    assert repeated.startswith("field x failed: 49 more in the last ")


def test_a_system_exit_does_not_prevent_the_answer() -> None:
    def leave() -> None:
        raise SystemExit(3)

    assert Gatherer(logging.getLogger("test")).call("field", leave) == {"error": "SystemExit: 3"}


def test_a_coroutine_is_an_error_and_not_shown() -> None:
    async def answer() -> int:
        return 1

    shown = Gatherer(logging.getLogger("test")).call("field", answer)

    assert shown["error"].startswith("TypeError: it returned a coroutine")


def test_an_error_without_a_message_is_shown_by_its_type() -> None:
    def fail() -> None:
        raise Unspeakable

    shown = Gatherer(logging.getLogger("test")).call("field", fail)

    assert shown == {"error": "Unspeakable: (its __str__ raises ValueError)"}
