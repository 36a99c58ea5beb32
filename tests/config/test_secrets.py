from __future__ import annotations

import json
from typing import Any

import pytest

from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import (
    SECRETS,
    Secret,
    hide,
    password_in,
    redact,
    secrets_in,
    without_password,
    without_passwords,
)

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


def test_a_secret_too_short_for_texts_is_still_hidden_as_a_value() -> None:
    SECRETS.add(["a"])

    assert redact("banana") == "banana"
    assert hide({"x": Secret("a")}, []) == {"x": HIDDEN}


def test_a_secret_that_was_added_once_stays_redacted() -> None:
    SECRETS.add([Secret("hush")])
    SECRETS.add(["quiet"])
    SECRETS.add([])

    assert redact("hush, quiet") == f"{HIDDEN}, {HIDDEN}"


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("http://user:hush@host/x?y@z#a@b", "hush"),
        ("http://hush@host", "hush"),
        ("http://user:@host", "user"),
        ("redis://:hush@host:6379/0", "hush"),
        ("http://user:hu@sh@host", "hu@sh"),
        ("http://user:hu/sh#@host", "hu/sh#"),
        ("http://user:a%20b@host", "a%20b"),
        ("http://host:80/@x", ""),
        ("http://host/@x", ""),
        ("http://[::1]:80/a:b@x", ""),
        ("webhook:https://user:hush@host/x", "hush"),
        ("webhook:https://host:80/@x", ""),
        ("user:hush@host", ""),
        ("::", ""),
    ],
)
def test_the_password_in_a_url_is_hidden(url: str, password: str) -> None:
    assert password_in(url) == password
    assert without_password(url) == (url.replace(password, HIDDEN, 1) if password else url)


def test_passwords_in_urls_are_hidden_at_any_depth() -> None:
    value = {"a": ["http://u:hush@host", 5], "b": {"c": "webhook:http://hush@host"}, "d": None}

    assert without_passwords(value) == {
        "a": [f"http://u:{HIDDEN}@host", 5],
        "b": {"c": f"webhook:http://{HIDDEN}@host"},
        "d": None,
    }


def test_the_secrets_of_a_configuration_are_found_at_any_depth() -> None:
    value = {"a": [Secret("one")], "b": {"c": "http://u:two%20@host"}, "d": 5, "e": None}

    assert sorted(secrets_in(value)) == ["one", "two ", "two%20"]
