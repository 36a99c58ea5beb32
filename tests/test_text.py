from __future__ import annotations

import re
import sys
from datetime import datetime
from typing import Any

import pytest

from daemonkit import text as text_module
from daemonkit.config.redaction import HIDDEN, Redactor
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
        (
            "x" * 9000,
            "Wrong: ".ljust(LONGEST_TEXT - len("... (cut: 9007 characters)"), "x")
            + "... (cut: 9007 characters)",
        ),
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


def test_a_traceback_is_plain_and_may_fail_to_format() -> None:
    assert traceback_text(ValueError("\ud800"), str) == "ValueError: \\ud800\n"
    assert traceback_text(Noted(), str) == "(formatting the traceback raises ValueError)\n"


@pytest.mark.parametrize("depth", [0, 500])
@pytest.mark.parametrize("length", [10, 9_000, 5_000_000])
def test_a_long_traceback_keeps_where_the_error_is_and_what_it_says(
    depth: int, length: int
) -> None:
    error = ValueError("begin" + "x" * length)
    try:
        fall(depth, error)
    except ValueError:
        text = traceback_text(error, str)

    assert len(text) <= LONGEST_TEXT
    assert "\n    raise error  # here\n" in text
    assert "\nValueError: begin" + "x" * min(length, 3_000) in text
    assert ("(cut: " in text) == (depth > 0 or length > 10)


def fall(depth: int, error: Exception) -> None:
    # On two lines, since Python folds those that are repeated.
    if depth:
        (rise if depth % 2 else fall)(depth - 1, error)
    raise error  # here


def rise(depth: int, error: Exception) -> None:
    fall(depth, error)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.11 has exception groups")
def test_a_long_exception_group_keeps_its_end() -> None:
    group = ExceptionGroup("both", [ValueError("x" * 9_000), ValueError("last")])  # noqa: F821
    text = traceback_text(group, str)

    assert len(text) <= LONGEST_TEXT
    assert "ValueError: last" in text


CUTS = (LONGEST_TEXT, LONGEST_TEXT // 2, 3 * LONGEST_TEXT)


@pytest.mark.parametrize("length", [LONGEST_TEXT, 10 * LONGEST_TEXT])
@pytest.mark.parametrize("cut", [*CUTS, *(-cut for cut in CUTS)])
def test_texts_are_redacted_before_they_are_cut(length: int, cut: int) -> None:
    def redact(text: str) -> str:
        return text.replace("$HUSH!", "*")

    for position in range(cut - 60, cut + 60):
        before = position if cut > 0 else max(0, length + position)
        error = ValueError("x" * before + "$HUSH!" + "x" * (length - before))

        assert not set("$HUS!") & set(error_text(error, redact).removeprefix("ValueError: "))
        assert not set("$HUS!") & set(traceback_text(error, redact).removeprefix("ValueError: "))


@pytest.mark.parametrize("length", [800, 4000])
def test_an_error_whose_text_is_a_long_secret_keeps_its_type(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_module, "LONGEST_TEXT", 800)
    secret = "".join(map(str, range(length)))[:length]
    redact = Redactor([secret])
    error = ValueError(secret)
    cut = f"... (cut: {length + 12} characters)" * (length > 3 * 800)

    assert error_text(error, redact) == f"ValueError: {HIDDEN}{cut}"
    try:
        raise KeyError("last") from error
    except KeyError as last:
        shown = traceback_text(last, redact)
    assert shown.endswith("KeyError: 'last'\n")
    assert not re.search(r"\d{7}", shown)
    assert HIDDEN in shown


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
