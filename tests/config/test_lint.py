from __future__ import annotations

from typing import Any

import pytest

from daemonkit import Secret
from daemonkit.config.lint import warnings_for
from daemonkit.config.loading import Given, load

NEAR = "the option {!r} looks like a misspelled 'master'; settings are read from 'master' only"
UNMATCHED = "master.hidden_opts: {!r} matches no option"
SHOWN = (
    "the option {!r} looks like a secret, and /status shows it: make it a !secret, or name it in "
    "master.hidden_opts"
)


def warnings(config: dict[str, Any], *hidden_opts: str) -> list[str]:
    return warnings_for(load(Given({**config, "master": {"hidden_opts": list(hidden_opts)}})))


def test_the_defaults_have_no_warnings() -> None:
    assert warnings_for(load(Given())) == []


@pytest.mark.parametrize("key", ["mater", "Master", "MASTER", "masters", "mastr"])
def test_a_key_that_is_nearly_the_section_is_named(key: str) -> None:
    for value in (None, {}, {"prot": 1}):
        assert warnings({key: value}) == [NEAR.format(key)]


def test_a_less_similar_key_needs_a_setting_in_it() -> None:
    assert warnings({"faster": {"rate": 1}, "masters": [1], "mater": "x", 5: {}}) == []
    assert warnings({"masetr": {"port": 1}}) == [NEAR.format("masetr")]


def test_conditions_without_a_target_are_named() -> None:
    def found(alerts: Any) -> list[str]:
        return warnings_for(load(Given({"master": {"alerts": alerts}})))

    when = {"dead_letters": 1}
    assert (
        found({"when": when})
        == found({"to": [], "when": when})
        == ["master.alerts.when raises alerts that go nowhere: master.alerts.to is missing"]
    )
    assert found({"to": ["juggler"], "when": when}) == found({"to": []}) == []


@pytest.mark.parametrize("pattern", ["tokn", "*.nothing", "db.x", "db.password.x"])
def test_a_pattern_that_hides_nothing_is_named(pattern: str) -> None:
    assert warnings({"db": {"password": "x"}}, "**.password", pattern) == [
        UNMATCHED.format(pattern)
    ]


def test_a_pattern_may_match_a_setting_or_an_already_hidden_option() -> None:
    assert warnings({"a": {"b": [1]}}, "master.port", "a", "a.b.0") == []


@pytest.mark.parametrize(
    "name",
    [
        *("password", "db_passwd", "SECRET", "yt_token", "apiKey", "api-key", "APIkey", "private_key"),
        *("credentials", "pass", "db_pass", "dbPass", "DB-PASS", "DBPass", "db_pass_2", "pwd", "userPwd"),
    ],
)  # fmt: skip
def test_an_option_that_looks_like_a_secret_and_is_shown_is_named(name: str) -> None:
    assert warnings({"db": {name: "AAAA"}}) == [SHOWN.format(f"db.{name}")]
    assert warnings({"db": [{name: ["AAAA", "BBBB"]}]}) == [SHOWN.format(f"db.0.{name}")]
    assert warnings({name: {"shop": "AAAA", "x": {"y": [1]}}}) == [SHOWN.format(name)]


@pytest.mark.parametrize(
    ("value", "expected"), [(123456, True), (1.5, True), (0, True), (True, False), (None, False)]
)
def test_a_secret_may_be_a_number(value: Any, expected: bool) -> None:
    assert warnings({"password": value}) == [SHOWN.format("password")] * expected
    assert (
        warnings({"pins": 1, "passwords": {"a": value}}) == [SHOWN.format("passwords")] * expected
    )


@pytest.mark.parametrize(
    "config",
    [
        {"token_url": "x", "token_ttl": 60, "tokenizer": "x", "token-count": 5},
        {"password_file": "/run/x", "passwordFile": "/run/x", "min_password_length": 8},
        {"secret_name": "x", "secret": True, "access_key_id": "x"},
        {"passes": 3, "bypass": "x", "compass": "x", "pass_rate": 0.5, "by_pass": True},
        {"tokens": 100, "max_tokens": 100, "maxToken": 5, "min_tokens": "5"},
        {"token": {"url": "x", "lifetime": 3600, "enabled": True}},
        {"credentials": {"user": "x", "id": 5, "password_file": "x"}},
    ],
)
def test_what_only_describes_a_secret_is_not_named(config: dict[str, Any]) -> None:
    assert warnings(config) == []


def test_the_innermost_key_that_says_something_decides() -> None:
    config = {"secrets": {"user": {"host": "x", "password": "y"}}, "token": {"url": {"main": "x"}}}

    assert warnings(config) == [SHOWN.format("secrets.user.password")]


def test_one_that_is_hidden_or_empty_is_not() -> None:
    secrets = {"token": Secret("x"), "tokens": [Secret("x")], "passwords": {"a": Secret("x")}}

    assert warnings({**secrets, "secrets": [], "credential": None, "api_key": ""}) == []
    assert warnings({"a": {"password": "x"}, "b": {"c": {"token": "x"}}}, "a.password", "b") == []
    assert warnings({"tokens": {"a": "x", "b": Secret("y")}}, "tokens.a") == []


def test_warnings_contain_no_values() -> None:
    config = {"password": "AAAA", "mater": {"password": "BBBB"}, "tokens": ["CCCC"]}
    text = "".join(warnings(config))

    assert text
    assert not any(value in text for value in ("AAAA", "BBBB", "CCCC"))
