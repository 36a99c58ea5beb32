from __future__ import annotations

from typing import Any

import pytest

from daemonkit.cli.quantities import duration, is_number, moment, number, to_second


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.001, "0.0 s"), (0.04, "0.0 s"), (2.34, "2.3 s"), (9.96, "10 s"), (59.6, "1 min"),
        (200, "3 min 20 s"), (7200, "2 h"), (7260, "2 h 1 min"), (187_200, "2 d 4 h"),
    ],
)  # fmt: skip
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (None, "-"),
        (True, "-"),
        ("5", "-"),
        (float("nan"), "-"),
        (10**400, "-"),
    ],
)
def test_a_count_has_commas(value: Any, text: str) -> None:
    assert number(value) == text
    assert is_number(value) == (text != "-")


def test_a_time_is_shown_without_its_fraction() -> None:
    assert to_second("2018-02-01 18:41:37.876631") == "2018-02-01 18:41:37"
    assert to_second("soon") == "soon"
    assert to_second(None) == "None"


@pytest.mark.parametrize("value", ["soon", None, 5, []])
def test_what_is_no_time_is_none(value: Any) -> None:
    assert moment(value) is None
