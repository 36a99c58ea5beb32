from __future__ import annotations

import json
from typing import Any

import pytest

from daemonkit.config.secrets import HIDDEN, Redactor, Secret, hide

TREE: dict[str, Any] = {
    "password": "p0",
    "db": {"password": "p1", "deep": {"password": "p2", "x": 1}},
    "users": [{"password": "p3"}],
    "dotted.key": {"password": "p4"},
    5: "five",
}


def hidden(*patterns: str) -> set[str]:
    """The values that some patterns hide."""
    shown = json.dumps(hide(TREE, list(patterns)))
    return {value for value in ("p0", "p1", "p2", "p3", "p4", "five") if value not in shown}


@pytest.mark.parametrize(
    ("pattern", "values"),
    [
        ("password", {"p0"}),
        ("db.password", {"p1"}),
        ("*.password", {"p1", "p4"}),
        ("**.password", {"p0", "p1", "p2", "p3", "p4"}),
        ("db.**", {"p1", "p2"}),
        ("db.deep", {"p2"}),
        ("users.0.password", {"p3"}),
        ("users.*.pass*", {"p3"}),
        ("dotted.key", {"p4"}),
        ("5", {"five"}),
        ("passwor", set()),
        ("*", {"p0", "p1", "p2", "p3", "p4", "five"}),
    ],
)
def test_a_pattern_hides_exactly_what_it_names(pattern: str, values: set[str]) -> None:
    assert hidden(pattern) == values


def test_hiding_leaves_the_original_alone() -> None:
    tree = {"a": {"b": "c"}}

    assert hide(tree, ["a.b"]) == {"a": {"b": HIDDEN}}
    assert tree == {"a": {"b": "c"}}


def test_a_secret_is_hidden_at_any_depth() -> None:
    assert hide({"a": [Secret("x")]}, []) == {"a": [HIDDEN]}


def test_the_longest_secret_is_redacted_first() -> None:
    assert Redactor(["abc", "abcdef", ""])("abcdef abc") == f"{HIDDEN} {HIDDEN}"


def test_escaped_forms_are_redacted_too() -> None:
    secret = 'line1\nline2 "й"'
    redact = Redactor([secret])

    assert redact(secret) == HIDDEN
    assert redact(repr(secret)) == f"'{HIDDEN}'"
    assert redact(json.dumps(secret)) == f'"{HIDDEN}"'
    assert redact(json.dumps(secret, ensure_ascii=False)) == f'"{HIDDEN}"'


def test_without_secrets_a_text_stays_as_it_is() -> None:
    assert Redactor()("anything") == "anything"


def test_a_secret_too_short_for_texts_is_still_hidden_as_a_value() -> None:
    assert Redactor(["a"])("banana") == "banana"
    assert hide({"x": Secret("a")}, []) == {"x": HIDDEN}
