from __future__ import annotations

from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, Secret
from daemonkit.config.access import (
    ADDRESS_OR_NONE,
    HOST,
    HOSTS,
    INTAKE,
    NETWORKS,
    PROXIES,
    TOKENS,
    Token,
    parse_tokens,
    split_address,
    unix_path,
)
from daemonkit.config.checks import Check

TEXT, OTHER = "a-token-of-16-ch", "another-token-of-more"
GOOD, SECOND = Secret(TEXT), Secret(OTHER)


def refusal(check: Check[Any], value: Any) -> str:
    with pytest.raises(ValueError, match="^must ") as caught:
        check(value)
    return str(caught.value)


# Tokens


def test_a_token_may_send_unless_it_says_otherwise() -> None:
    given = {"shop": GOOD, "grafana": {"token": SECOND, "may": ["read", "control"]}}

    assert TOKENS(given) == given
    assert parse_tokens(given) == [
        Token("shop", (TEXT,), frozenset({"send"})),
        Token("grafana", (OTHER,), frozenset({"read", "control"})),
    ]


@pytest.mark.parametrize("form", [lambda t: t, lambda t: {"token": t}])
def test_a_name_may_have_several_tokens_for_rotation(form: Any) -> None:
    given = {"shop": form([GOOD, SECOND])}

    assert parse_tokens(TOKENS(given)) == [Token("shop", (TEXT, OTHER), frozenset({"send"}))]


A_SECRET = "must have a !secret as the token of shop, or a list of them"
TOO_SHORT = "must have a token of at least 16 printable ASCII characters without spaces for shop"
A_MAPPING = "must have a !secret for shop, or a mapping with `token` and `may`"
RIGHTS = "must have a list of send, read, control as `may` of shop"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([GOOD], "must be a mapping of names to tokens"),
        (TEXT, "must be a mapping of names to tokens"),
        ({"shop": TEXT}, A_SECRET),
        ({"shop": 7}, A_SECRET),
        ({"shop": None}, A_SECRET),
        ({"shop": []}, A_SECRET),
        ({"shop": {"token": [GOOD, TEXT]}}, A_SECRET),
        ({"shop": [[GOOD]]}, A_SECRET),
        ({"shop": Secret(TEXT[1:])}, TOO_SHORT),
        ({"shop": [GOOD, Secret(OTHER[:15])]}, TOO_SHORT),
        ({"shop": Secret("a token with spaces")}, TOO_SHORT),
        ({"shop": Secret("a-token-with-ümläuts")}, TOO_SHORT),
        ({"shop": Secret("a-token-with-a-line\n")}, TOO_SHORT),
        ({"shop": {}}, A_MAPPING),
        ({"shop": {"may": ["send"]}}, A_MAPPING),
        ({"shop": {"token": GOOD, "can": ["send"]}}, A_MAPPING),
        ({"shop": {"token": GOOD, 1: 2}}, A_MAPPING),
        ({"shop": {"token": GOOD, "may": ["write"]}}, RIGHTS),
        ({"shop": {"token": GOOD, "may": "send"}}, RIGHTS),
        ({"shop": {"token": GOOD, "may": []}}, RIGHTS),
        ({"shop": {"token": GOOD, "may": [["send"]]}}, RIGHTS),
        ({"shop": {"token": GOOD, "may": None}}, RIGHTS),
        ({"a": GOOD, "shop": GOOD}, "must have a token for shop that is not there twice"),
        ({"shop": [GOOD, GOOD]}, "must have a token for shop that is not there twice"),
        ({5: GOOD}, "must have names of letters, digits, `_`, `.` and `-`, not 5"),
        ({"a b": GOOD}, "must have names of letters, digits, `_`, `.` and `-`, not 'a b'"),
        ({"": GOOD}, "must have names of letters, digits, `_`, `.` and `-`, not ''"),
    ],
)
def test_a_wrong_token_is_refused_in_words_that_do_not_show_it(given: Any, message: str) -> None:
    text = refusal(TOKENS, given)

    assert text == message
    assert not any(token[:8] in text for token in (TEXT, OTHER))


@pytest.mark.parametrize(
    "tokens",
    [
        "{shop: a-token-of-16-ch}",
        "{shop: !secret a-token-of-16-c}",
        "{shop: !secret 'a-token-of 16-ch'}",
        "{shop: {token: !secret a-token-of-16-ch, may: [all]}}",
        "{shop: !secret a-token-of-16-ch, oncall: !secret a-token-of-16-ch}",
    ],
)
def test_a_wrong_token_in_a_file_is_a_configuration_error_that_does_not_show_it(
    written: Any, tokens: str
) -> None:
    with pytest.raises(ConfigError, match=r"^cfg\.yaml:2: master\.tokens must ") as caught:
        Daemon("app", config=written(f"master:\n    tokens: {tokens}\n")).configure()

    assert "a-token" not in str(caught.value)


# Settings that contradict each other

GUARDED = {"tokens": {"shop": GOOD}}


@pytest.mark.parametrize(
    "more", [{"intake": ["http"]}, {"allow_from": ["10.0.0.0/8"]}, {"host": "unix:/run/x.sock"}]
)
def test_send_may_be_guarded_without_open_datagrams(more: dict[str, Any]) -> None:
    Daemon("app").configure({"master": {**GUARDED, **more}})


def test_guarding_send_while_anyone_may_send_datagrams_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError) as caught:
        Daemon("app").configure({"master": GUARDED})

    assert str(caught.value).endswith(
        "master.tokens guards `send`, but a datagram carries no token; "
        "set master.intake to [http], or master.allow_from"
    )


def test_guarding_other_rights_leaves_datagrams_alone() -> None:
    tokens = {"oncall": {"token": GOOD, "may": ["read", "control"]}}
    Daemon("app").configure({"master": {"tokens": tokens}})


# The other settings


def test_networks_are_networks_or_addresses() -> None:
    given = ["10.0.0.0/8", "::1", "192.0.2.1", "2001:db8::/32", "10.0.0.0/255.0.0.0"]
    assert NETWORKS(given) == given
    assert PROXIES([*given, "unix"]) == [*given, "unix"]
    for check in (NETWORKS, PROXIES):
        assert refusal(check, ["10.0.0.1/8"]).startswith("must be a list of networks")
        for wrong in (["example.com"], "10.0.0.0/8", [10], [None], ["10.0.0.0/33"], [""], {}):
            refusal(check, wrong)
    refusal(NETWORKS, ["unix"])


def test_hosts_are_names_and_addresses_without_ports() -> None:
    given = ["Billing.Example", ".example", "[2001:DB8::7]", "2001:db8::7", "10.0.0.1", "a_b.", "x"]
    assert HOSTS(given) == [item.lower() for item in given]
    for wrong in (
        *("billing.example:80", "beef:80", "10.0.0.1:80", "[::1]:80", "http://x", "*.example"),
        *("", ".", "..", "a..b", "ä.example", "a b", "[x]", "a/b"),
    ):
        assert refusal(HOSTS, [wrong]).startswith("must be a list of host names, such as ")
    for value in ("billing.example", [5], None, {}):
        refusal(HOSTS, value)


def test_intakes_are_named_once() -> None:
    for given in (["http", "udp"], ["udp"], []):
        assert INTAKE(given) == given
    for wrong in (["tcp"], ["http", "http"], "http", [[]], None, [1]):
        assert refusal(INTAKE, wrong).startswith("must be a list of http, udp, each at most once, ")


def test_a_host_is_an_address_or_the_absolute_path_of_a_unix_socket() -> None:
    for given in ("::", "localhost", "unix:/run/x.sock"):
        assert HOST(given) == given
    for wrong in ("", "unix:", "unix:x.sock", "unix:/a\0b", 5, None):
        assert refusal(HOST, wrong).startswith("must be an address, or unix: and an absolute path")


def test_an_admin_address_has_a_port_or_is_a_unix_socket() -> None:
    for given in ("127.0.0.1:5152", "[::1]:0", "localhost:65535", "unix:/run/x.sock", None):
        assert ADDRESS_OR_NONE(given) == given
    for wrong in ("127.0.0.1", ":5152", "x:65536", "x:-1", "x:y", "x:", "5152", 5152, "unix:x"):
        assert refusal(ADDRESS_OR_NONE, wrong).startswith("must be HOST:PORT or unix:/PATH or null")


def test_an_address_is_split_into_its_parts() -> None:
    assert split_address("[::1]:5152") == ("::1", 5152)
    assert split_address("localhost:0") == ("localhost", 0)
    assert unix_path("unix:/run/x.sock") == "/run/x.sock"
    assert unix_path("unix.example") is None
