from __future__ import annotations

from typing import Any

import pytest

from daemonkit.config.checks import (
    TEXT,
    Check,
    duration,
    duration_text,
    or_none,
    size,
    size_text,
    whole,
)

SIZE, DURATION = size(1), duration(0.1, 86_400)


def refusal(check: Check[Any], value: Any) -> str:
    with pytest.raises(ValueError, match="^must be ") as caught:
        check(value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "number"),
    [(5, 5), ("64KiB", 65_536), ("10MiB", 10_485_760), ("1GiB", 2**30), ("1.5KiB", 1536)],
)
def test_a_size_is_a_number_of_bytes_or_has_a_binary_unit(given: Any, number: int) -> None:
    assert SIZE(given) == number
    assert type(SIZE(given)) is int


@pytest.mark.parametrize(
    ("given", "number"),
    [(5, 5), (0.5, 0.5), ("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1.5m", 90)],
)
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(given: Any, number: float) -> None:
    assert DURATION(given) == number


def test_a_whole_number_of_seconds_is_shown_as_one() -> None:
    assert repr(DURATION("30s")) == "30"


@pytest.mark.parametrize(
    "given", ["10MB", "10mib", "10 MiB", "MiB", "10", "-1KiB", "0.1KiB", "5s", "٣KiB", 1.5, True]
)
def test_another_form_of_a_size_is_refused_and_the_forms_are_named(given: Any) -> None:
    assert refusal(SIZE, given) == (
        "must be a size >= 1, such as 65536, 64KiB, 10MiB or 1GiB, "
        f"not {given!r} ({type(given).__name__})"
    )


@pytest.mark.parametrize(
    "given", ["5 s", "5S", "5min", "1d", "s", "5", "", "1e3s", "25h", "50ms", "1" * 400 + "s", None]
)
def test_another_form_of_a_duration_is_refused_and_the_forms_are_named(given: Any) -> None:
    assert refusal(DURATION, given).startswith(
        "must be a duration of 0.1..86400 seconds, such as 30, 500ms, 30s, 5m or 1h, not "
    )


@pytest.mark.parametrize("check", [whole(1, 5), size(1, 5), duration(1, 5)])
def test_the_limits_are_allowed_and_no_more(check: Check[Any]) -> None:
    assert (check(1), check(5)) == (1, 5)
    for beyond in (0, 6):
        with pytest.raises(ValueError, match=r"must be an? .*1\.\.5[, ]"):
            check(beyond)


def test_an_optional_value_may_be_null() -> None:
    assert or_none(TEXT)(None) is None
    assert or_none(TEXT)("x") == "x"
    with pytest.raises(ValueError, match=r"^must be a string, not empty or null, not '' \(str\)$"):
        or_none(TEXT)("")


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (1, "1"), (1536, "1536"), (2**20, "1MiB"), (10 * 2**20, "10MiB")]
)
def test_a_size_is_shown_with_the_largest_unit_that_divides_it(number: int, text: str) -> None:
    assert size_text(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (30, "30s"), (90.0, "90s"), (600.0, "10m"), (7200, "2h"), (0.5, "500ms"),
        (1e-7, "1e-07s"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_as_it_may_be_written(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
