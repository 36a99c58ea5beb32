from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from daemonkit.text import LONGEST_TEXT, describe, error_text, plain, timestamp, traceback_text


class Text(str):
    def encode(self, *_: Any) -> bytes:
        raise ValueError


class Wrong(Exception):
    def __init__(self, text: Any) -> None:
        self.text = text

    def __str__(self) -> str:
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é\n", "é\n"),
        ("a \ud800", "a \\ud800"),
        (Text("a \udfff"), "a \\udfff"),
    ],
    ids=["none", "surrogate", "subclass"],
)
def test_a_plain_text_can_be_encoded_and_is_a_str(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert type(plain(text)) is str


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Wrong"),
        (Text("a \ud800"), "Wrong: a \\ud800"),
        (7, "Wrong: (its __str__ raises TypeError)"),
        (SystemExit(), "Wrong: (its __str__ raises SystemExit)"),
        ("x" * 9000, "Wrong: ".ljust(LONGEST_TEXT, "x")),
    ],
    ids=["empty", "surrogate", "no str", "raises", "long"],
)
def test_the_text_of_any_error_is_plain_and_short(text: Any, expected: str) -> None:
    found = error_text(Wrong(text))

    assert found == expected
    assert type(found) is str


class Noted(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise ValueError


def test_a_traceback_is_plain_keeps_its_end_and_may_fail_to_format() -> None:
    error = ValueError("x" * 9000 + "\ud800")
    text = traceback_text(error, str)

    assert text == "x" * (LONGEST_TEXT - len("\\ud800\n")) + "\\ud800\n"
    assert traceback_text(Noted(), str) == "(formatting the traceback raises ValueError)\n"


def test_texts_are_redacted_before_they_are_cut() -> None:
    error = ValueError("x" * (LONGEST_TEXT - len("ValueError: ") - 1) + "secret")

    def redact(text: str) -> str:
        return text.replace("secret", "***")

    assert error_text(error, redact).endswith("x*")
    assert "secret"[-3:] not in traceback_text(error, redact)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(-2, "-2 (int)"), ("x", "'x' (str)"), ("x" * 200, "'" + "x" * 99 + "... (str)")],
    ids=["int", "str", "long"],
)
def test_a_value_is_described_with_its_type(value: Any, expected: str) -> None:
    assert describe(value) == expected


def test_a_time_is_shown_to_the_microsecond() -> None:
    assert timestamp(datetime(2018, 2, 1, 18, 41, 37)) == "2018-02-01 18:41:37.000000"
    assert timestamp(None) is None
