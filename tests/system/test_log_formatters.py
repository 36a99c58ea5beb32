from __future__ import annotations

import json
import os
import re
import sys
from collections import UserDict
from typing import Any

import pytest

from daemonkit.system.handling import Handled, Handling
from daemonkit.system.log_formatters import FORMATTERS, ColumnFormatter, JsonFormatter, message
from daemonkit.text import LONGEST_TEXT

from .records import hide, record


def test_the_columns_are_those_of_the_original() -> None:
    line = ColumnFormatter().format(record("Config file is not specified", threadName="MainThread"))

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
        r"MainThread {14}app {29}INFO {8}Config file is not specified",
        line,
    )


def test_a_name_longer_than_its_column_is_separated_from_the_next() -> None:
    line = ColumnFormatter().format(record(threadName="t" * 40))

    assert f" {'t' * 40} app " in line


def test_secrets_are_redacted_in_message_and_traceback() -> None:
    try:
        raise ValueError("hush")
    except ValueError:
        made = record("say %s", "hush", exc_info=sys.exc_info(), stack_info="hush")

    assert "hush" not in ColumnFormatter(hide).format(made)
    assert "hush" not in JsonFormatter(hide).format(made)


def test_json_has_one_object_a_line_with_the_extras() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        made = record("a\n%s", "b", exc_info=sys.exc_info(), request={"id": 5}, when=os)
    line = JsonFormatter().format(made)
    fields = json.loads(line)

    assert "\n" not in line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", fields.pop("time"))
    assert fields.pop("exception").endswith("ValueError: no")
    assert fields == {
        "level": "INFO",
        "logger": "app",
        "thread": "worker",
        "message": "a\nb",
        "request": {"id": 5},
        "when": str(os),
    }


def test_a_number_that_is_a_secret_is_hidden_as_in_text() -> None:
    made = record(pin=1234, pins=[{"pin": 1234.0}], number=5)
    fields = json.loads(JsonFormatter(lambda text: text.replace("1234", "*")).format(made))

    assert fields | {"pin": "*", "pins": [{"pin": "*.0"}], "number": 5} == fields


def test_keys_that_are_the_same_once_they_are_redacted_are_all_there() -> None:
    made = record(**{"hush": 1, "*": 2}, nested={1: "a", "1": "b"})
    fields = json.loads(JsonFormatter(hide).format(made))

    assert fields | {"*": 1, "* (2)": 2, "nested": {"1": "a", "1 (2)": "b"}} == fields


def test_an_extra_that_json_cannot_hold_is_text() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    fields = json.loads(JsonFormatter().format(record(nan=float("nan"), circle=circle)))

    assert fields["nan"] == "nan"
    assert fields["circle"] == "{'self': {...}}"


def test_text_from_outside_cannot_forge_a_log_line() -> None:
    forged = "2018-01-26 17:39:28,062 MainThread"
    line = ColumnFormatter().format(record(f"/a\n{forged}\r{forged}\x1b[31m\x85\u2028{forged}"))
    lines = line.split("\n")

    assert len(lines) == len(line.splitlines()) == 2
    assert lines[1] == f"  {forged}\\r{forged}\\x1b[31m\\x85\\u2028{forged}"


FORGING = "\u061c\u200b\u200d\u200e\u202a\u202e\u2066\u2069\ufeff"


@pytest.mark.parametrize("field", ["msg", "threadName", "name", "levelname"])
def test_no_part_of_a_line_hides_or_reorders_what_is_shown(field: str) -> None:
    line = ColumnFormatter().format(record(**{field: f"a{FORGING}\x1b[31m\u2028b"}))

    assert r"a\u061c\u200b\u200d\u200e\u202a\u202e\u2066\u2069\ufeff\x1b[31m\u2028b" in line
    assert line.isprintable()


@pytest.mark.parametrize("field", ["threadName", "name", "levelname"])
def test_a_name_with_line_breaks_forges_no_line(field: str) -> None:
    line = ColumnFormatter().format(record(**{field: "a\nb\tc\rd"}))

    assert r"a\nb\tc\rd" in line
    assert line.isprintable()


def test_tabs_in_a_message_stay() -> None:
    assert ColumnFormatter().format(record("a\tb")).endswith(" a\tb")


@pytest.mark.parametrize("style", FORMATTERS)
def test_names_are_redacted_too(style: str) -> None:
    made = record(threadName="slave-hush", name="app.hush", levelname="hush")
    made.vars_of_hush = {"hush": ["hush"]}
    line = FORMATTERS[style](hide).format(made)

    assert "hush" not in line
    assert "slave-*" in line


# What raises when it is shown


class Broken:
    """Raises whatever is asked of it."""

    def __init__(self, error: type[BaseException] = ValueError) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__

    def __hash__(self) -> int:
        return 5


ERRORS = [ValueError, RecursionError, SystemExit, KeyboardInterrupt, MemoryError]
PLACE = "(Broken that can't be shown: {})"


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("style", FORMATTERS)
def test_an_argument_that_raises_costs_only_its_place(
    style: str, error: type[BaseException]
) -> None:
    line = FORMATTERS[style]().format(record("%s and %d of %r", Broken(error), 5, "x"))

    assert PLACE.format(error.__name__) + " and 5 of 'x'" in line


@pytest.mark.parametrize(
    ("text", "arguments", "shown"),
    [
        (Broken(), (), PLACE),
        ("%(a)s, %(b)s", {"a": Broken(), "b": 1}, PLACE + ", 1"),
        ("%s", {Broken(): 1}, "(dict that can't be shown: {})"),
        ("%d", (Broken(),), "%d (this line at x could not be formatted: TypeError)"),
        ("%s %s", ("hush",), "%s %s (this line at x could not be formatted: TypeError)"),
        (5, (), "5"),
    ],
)
def test_a_message_has_a_placeholder_for_what_raises(
    text: object, arguments: Any, shown: str
) -> None:
    assert message(text, arguments, " at x") == shown.format("ValueError")


@pytest.mark.parametrize("error", ERRORS)
def test_an_extra_that_raises_costs_only_its_place(error: type[BaseException]) -> None:
    class Wrong(UserDict[str, str]):
        def __str__(self) -> str:
            raise error

    made = record(it=Broken(error), keys={Broken(error): 1, "b": [Broken(error)]}, wrong=Wrong())
    fields = json.loads(JsonFormatter().format(made))
    place = PLACE.format(error.__name__)

    assert fields["message"] == "hello"
    assert fields["it"] == place
    assert fields["keys"] == {place: 1, "b": [place]}
    assert fields["wrong"] == f"(Wrong that can't be shown: {error.__name__})"


@pytest.mark.parametrize("style", FORMATTERS)
def test_an_exception_that_raises_leaves_the_line(style: str) -> None:
    class Wrong(Exception):
        @property
        def __cause__(self) -> Any:  # type: ignore[override]
            raise KeyboardInterrupt

    error = Wrong()
    line = FORMATTERS[style]().format(record(exc_info=(Wrong, error, None)))

    assert "hello" in line
    assert "(formatting the traceback raises KeyboardInterrupt)" in line


# Exceptions


@pytest.mark.parametrize("style", FORMATTERS)
def test_a_huge_exception_is_cut_and_a_huge_message_is_not(style: str) -> None:
    try:
        raise ValueError("begin" + "x" * 5_000_000)
    except ValueError:
        made = record("y" * 20_000, exc_info=sys.exc_info())
    line = FORMATTERS[style]().format(made)

    assert "y" * 20_000 in line
    assert "ValueError: beginxxx" in line
    assert "raise ValueError(" in line
    assert "(cut: 50000" in line
    assert len(line) < 20_000 + LONGEST_TEXT + 500


@pytest.mark.parametrize("style", FORMATTERS)
def test_a_text_in_place_of_an_exception_is_shown(style: str) -> None:
    from_another_process = record(exc_text="Traceback hush")

    assert "Traceback *" in FORMATTERS[style](hide).format(from_another_process)
    assert "None" not in FORMATTERS[style]().format(record(exc_info=(None, None, None)))


class Worker(Handling):
    def describe(self) -> Handled:
        return Handled(7, 7, "shop-hush")


def test_a_line_says_which_event_is_being_handled() -> None:
    worker = Worker()
    worker.attach()
    try:
        worker.taken = "event"
        made = record("one\ntwo\n", event="theirs")
        line = ColumnFormatter(hide).format(made)
        fields = json.loads(JsonFormatter(hide).format(made))
    finally:
        worker.pause()

    assert line.endswith(" INFO        one [event 7 from shop-*]\n  two")
    assert (fields["event"], fields["sender"], fields["event (2)"]) == (7, "shop-*", "theirs")
    assert "[event" not in ColumnFormatter(hide).format(made)
