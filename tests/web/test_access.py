from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import pytest
from werkzeug.datastructures import Headers
from werkzeug.exceptions import Forbidden

from daemonkit import Secret
from daemonkit.config.defaults import Settings
from daemonkit.web.access import (
    CLIENT,
    CONTROL,
    FORWARDED,
    PEER,
    READ,
    SEND,
    Access,
    Client,
    Peer,
    TokenMissing,
    last_of,
)

LOCAL, REMOTE = Peer("127.0.0.1", 4000), Peer("192.0.2.1", 4000)
OURS = Peer(None, 0, os.geteuid())
SHOP, READER, ONCALL, ROTATED = ("s" * 16, "r" * 16, "c" * 16, "n" * 16)
TOKENS = {
    "shop": [Secret(SHOP), Secret(ROTATED)],
    "grafana": {"token": Secret(READER), "may": ["read"]},
    "oncall": {"token": Secret(ONCALL), "may": ["send", "read", "control"]},
}


def access(**settings: Any) -> Access:
    return Access(Settings(**settings))


def fields(token: str | None = None, **given: str) -> Headers:
    """Header fields; underscores for hyphens."""
    found = Headers({name.replace("_", "-"): value for name, value in given.items()})
    found.setdefault("host", "localhost:5151")
    if token is not None:
        found["authorization"] = f"Bearer {token}"
    return found


def outcome(
    access: Access, right: str, peer: Peer = LOCAL, headers: Headers | None = None
) -> int | str | None:
    """The name of the token, or the status of the refusal."""
    try:
        return access.check(right, peer, fields() if headers is None else headers)
    except (TokenMissing, Forbidden) as error:
        return error.code


# Rights


def test_by_default_anyone_may_send_and_read_and_only_the_same_machine_control() -> None:
    default = access()

    assert default.guarded == set()
    for right in (SEND, READ):
        assert [outcome(default, right, peer) for peer in (LOCAL, REMOTE, OURS)] == [None] * 3
    assert [outcome(default, CONTROL, peer) for peer in (LOCAL, REMOTE, OURS)] == [None, 403, None]


def test_a_right_that_a_token_grants_requires_one_everywhere() -> None:
    guarded = access(tokens=TOKENS)

    assert guarded.guarded == {SEND, READ, CONTROL}
    for peer in (LOCAL, REMOTE, OURS):
        for token, may in (
            (None, [401, 401, 401]),
            ("w" * 16, [401, 401, 401]),
            (SHOP, ["shop", 403, 403]),
            (ROTATED, ["shop", 403, 403]),
            (READER, [403, "grafana", 403]),
            (ONCALL, ["oncall"] * 3),
        ):
            found = [
                outcome(guarded, right, peer, fields(token)) for right in (SEND, READ, CONTROL)
            ]
            assert found == may, (peer, token)


def test_a_right_that_no_token_grants_keeps_its_default() -> None:
    some = access(tokens={"shop": Secret(SHOP)})

    assert some.guarded == {SEND}
    assert outcome(some, READ, REMOTE) is None
    assert [outcome(some, CONTROL, peer) for peer in (LOCAL, REMOTE)] == [None, 403]
    # It needs no token, so a wrong one doesn't matter, and a valid one gives its name.
    assert outcome(some, READ, REMOTE, fields("w" * 16)) is None
    assert outcome(some, READ, REMOTE, fields(SHOP)) == "shop"
    assert outcome(some, CONTROL, LOCAL, fields(SHOP)) == "shop"
    assert outcome(some, CONTROL, REMOTE, fields(SHOP)) == 403


def test_the_fast_lane_asks_the_same_of_a_sender() -> None:
    for settings in ({}, {"tokens": TOKENS}, {"tokens": {"grafana": TOKENS["grafana"]}}):
        either = access(**settings)
        for token in (None, "w" * 16, SHOP, READER, ONCALL):
            field = fields(token)
            expected = outcome(either, SEND, REMOTE, field)
            may, name = either.sender(field.get("Authorization", ""))
            assert may == (expected not in (401, 403))
            assert not may or name == expected


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {SHOP}", f"bearer {SHOP}", f"BEARER   {SHOP} ", f"Bearer \t{SHOP}"],
)
def test_the_scheme_is_bearer_in_any_case(authorization: str) -> None:
    field = fields(authorization=authorization)
    assert outcome(access(tokens=TOKENS), SEND, REMOTE, field) == "shop"


@pytest.mark.parametrize(
    "authorization",
    [
        *(SHOP, f"Basic {SHOP}", f"Bearer{SHOP}", f"Bearer\t{SHOP}", "Bearer", "Bearer ", "bear"),
        *(f"Bearer {SHOP[1:]}", f"Bearer {SHOP}s", f"Bearer {SHOP.upper()}", f"Bearer {SHOP}, x"),
        *(f"Bearer {SHOP}\xff", f"Bearer {SHOP}ä€", f"Bearer {SHOP}, Bearer {SHOP}", "Bearer ?"),
    ],
)
def test_anything_else_is_no_token(authorization: str) -> None:
    with pytest.raises(TokenMissing) as caught:
        access(tokens=TOKENS).check(SEND, REMOTE, fields(authorization=authorization))

    assert caught.value.description == "This needs a valid token: Authorization: Bearer TOKEN"


def test_a_refusal_names_the_scheme_or_what_is_missing() -> None:
    guarded = access(tokens=TOKENS)
    with pytest.raises(TokenMissing) as missing:
        guarded.check(READ, REMOTE, fields())
    with pytest.raises(Forbidden) as forbidden:
        guarded.check(READ, REMOTE, fields(SHOP))

    assert ("WWW-Authenticate", "Bearer") in missing.value.get_headers()
    assert missing.value.description == "This needs a token: Authorization: Bearer TOKEN"
    assert forbidden.value.description == "The token shop may not read"


def test_every_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them, whichever matches."""
    compared: list[bytes] = []

    def compare(secret: bytes, given: bytes) -> bool:
        compared.append(secret)
        return secret == given

    monkeypatch.setattr("daemonkit.web.access.hmac.compare_digest", compare)
    guarded = access(tokens=TOKENS)
    for token in (SHOP, ONCALL, "w" * 16):
        compared.clear()
        guarded.sender(f"Bearer {token}")
        assert compared == [secret.encode() for secret in (SHOP, ROTATED, READER, ONCALL)]


# The same machine


@pytest.mark.parametrize(
    ("address", "is_same"),
    [
        *(("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True)),
        *(("192.0.2.1", False), ("::2", False), ("10.0.0.1", False), ("", False), ("x", False)),
        ("fe80::1%lo", False),
    ],
)
def test_loopback_is_the_same_machine(address: str, is_same: bool) -> None:
    for is_admin in (False, True):
        found = outcome(access(), CONTROL, Peer(address, 1, None, is_admin))
        assert found == (None if is_same else 403)


@pytest.mark.parametrize("peer", [LOCAL, OURS])
@pytest.mark.parametrize(
    "field", [*FORWARDED, "X-Forwarded-For", "X-Forwarded-User", "x-forwarded-ssl", "X-FORWARDED-Z"]
)
@pytest.mark.parametrize("value", ["x", ""])
def test_what_came_through_a_proxy_is_not_from_the_same_machine(
    peer: Peer, field: str, value: str
) -> None:
    found = outcome(access(), CONTROL, peer, fields(**{field.replace("-", "_"): value}))
    assert found == 403


def test_a_unix_socket_is_the_same_machine_for_root_and_the_daemons_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1234)
    for is_admin in (False, True):
        for user, expected in ((1234, None), (0, None), (1235, 403), (65534, 403), (None, 403)):
            assert outcome(access(), CONTROL, Peer(None, 0, user, is_admin)) == expected


def test_with_trusted_proxies_control_needs_a_token_or_the_admin_unix_socket() -> None:
    for proxies in (["10.0.0.7"], ["unix"]):
        behind = access(trusted_proxies=proxies)
        assert [outcome(behind, CONTROL, peer) for peer in (LOCAL, OURS)] == [403, 403]
        assert outcome(behind, CONTROL, LOCAL._replace(is_admin=True)) == 403
        assert outcome(behind, CONTROL, OURS._replace(is_admin=True)) is None
        assert outcome(behind, CONTROL, Peer(None, 0, 4321, is_admin=True)) == 403
        guarded = access(trusted_proxies=proxies, tokens=TOKENS)
        assert outcome(guarded, CONTROL, REMOTE, fields(ONCALL)) == "oncall"


# Host names


def named(host: str, **settings: Any) -> int | str | None:
    return outcome(access(**settings), CONTROL, LOCAL, fields(host=host))


def test_by_default_any_name_is_allowed() -> None:
    assert all(map(access().allows_host, ("anything.example", "", "x:1", "[::1]", "a..b")))


def test_allowed_names_are_compared_without_port_case_and_final_dot() -> None:
    some = access(allowed_hosts=["billing.example", "other.example.", "2001:db8::7", "192.0.2.1"])

    for host in (
        *("billing.example", "BILLING.example:5151", "billing.example.", "billing.example.:80"),
        *(
            "other.example",
            "other.example.",
            "[2001:db8::7]",
            "[2001:DB8:0:0::7]:5151",
            "192.0.2.1",
        ),
        *(
            "localhost",
            "localhost:80",
            "LOCALHOST.",
            "127.0.0.1",
            "127.8.8.8:80",
            "[::1]",
            "[::1]:80",
        ),
    ):
        assert some.allows_host(host), host
    for host in (
        *("", "evil.example", "x.billing.example", "billing.example.evil", "xbilling.example"),
        *("billing.example@evil", "[2001:db8::8]", "192.0.2.2", "10.0.0.1", "localhost.evil"),
        *("127.0.0.1.evil", "::", "2001:db8::7x", "127.1", "billing.example..", "evil:80"),
    ):
        assert not some.allows_host(host), host


def test_a_name_with_a_dot_matches_the_domain_and_its_subdomains() -> None:
    some = access(allowed_hosts=[".example"])

    assert all(map(some.allows_host, ("example", "a.example", "a.b.example:80", "A.EXAMPLE.")))
    assert not any(map(some.allows_host, ("badexample", "example.evil", "")))


def test_an_ipv6_address_may_be_written_with_brackets() -> None:
    for written in ("[2001:db8::7]", "2001:db8:0::7", "[2001:db8::0007]"):
        assert access(allowed_hosts=[written]).allows_host("[2001:db8::7]:5151")


def test_control_accepts_addresses_and_the_machines_names_against_dns_rebinding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Box7.example.com")
    for host in (
        *("localhost", "localhost:5151", "127.0.0.1", "[::1]:5151", "192.0.2.1:5151", "box7"),
        *("box7.example.com", "BOX7:80", "box7.example.com."),
    ):
        assert named(host) is None, host
    for host in ("evil.example", "example.com", "x.box7", "", "127.0.0.1.evil", "localhost.evil"):
        assert named(host) == 403, host


def test_control_accepts_only_allowed_hosts_once_there_are_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "box7")
    for host, expected in (
        *(("billing.example", None), ("localhost", None), ("[::1]", None), ("box7", 403)),
        *(("192.0.2.1", 403), ("evil.example", 403)),
    ):
        assert named(host, allowed_hosts=["billing.example"]) == expected, host


def test_a_token_for_control_does_not_replace_the_right_host() -> None:
    guarded = access(tokens=TOKENS)

    assert outcome(guarded, CONTROL, REMOTE, fields(ONCALL, host="evil.example")) == 403
    assert outcome(guarded, CONTROL, REMOTE, fields(ONCALL, host="192.0.2.7:5151")) == "oncall"


def test_no_browser_reaches_a_unix_socket_so_its_host_does_not_matter() -> None:
    assert outcome(access(), CONTROL, OURS, fields(host="anything.example")) is None


# Other sites


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ({}, True),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, True),
        ({"sec_fetch_site": "Same-Origin"}, False),
        ({"sec_fetch_site": ""}, False),
        ({"sec_fetch_site": "", "origin": "http://localhost:5151"}, False),
        ({"origin": ""}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "anything"}, False),
        ({"sec_fetch_site": "same-origin, none"}, False),
        ({"sec_fetch_site": "same-origin", "origin": "http://evil.example"}, True),
        ({"sec_fetch_site": "cross-site", "origin": "http://localhost:5151"}, False),
        ({"origin": "http://localhost:5151"}, True),
        ({"origin": "HTTP://LOCALHOST:5151"}, True),
        ({"origin": "https://localhost:5151"}, True),
        ({"origin": "http://localhost:5152"}, False),
        ({"origin": "http://localhost"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://"}, False),
        ({"origin": "//localhost:5151"}, False),
        ({"origin": "localhost:5151"}, False),
        ({"origin": "http://[::1"}, False),
        ({"origin": "http://["}, False),
        ({"origin": "http://[x]]"}, False),
        ({"origin": "http://localhost:5151 http://evil.example"}, False),
        ({"origin": "http://a.example", "host": "a.example:80"}, True),
        ({"origin": "http://a.example:80", "host": "a.example"}, True),
        ({"origin": "https://a.example", "host": "a.example:443"}, True),
        ({"origin": "https://a.example", "host": "a.example"}, True),
        ({"origin": "https://a.example", "host": "a.example:80"}, False),
        ({"origin": "http://a.example", "host": "a.example:443"}, False),
        ({"origin": "http://[::1]:5151", "host": "[::1]:5151"}, True),
        ({"origin": "http://[::1]", "host": "[::1]:80"}, True),
        ({"origin": "http://[::1]:5151", "host": "[::2]:5151"}, False),
        ({"origin": "moz-extension://abc", "host": "abc"}, True),
        ({"origin": "chrome-extension://abc"}, False),
    ],
)
def test_a_page_of_another_site_may_not_send(given: Mapping[str, str], passes: bool) -> None:
    found = outcome(access(), SEND, REMOTE, fields(**given))

    assert found == (None if passes else 403)


def test_a_page_of_another_site_may_not_control_with_or_without_a_token() -> None:
    assert outcome(access(), CONTROL, LOCAL, fields(sec_fetch_site="cross-site")) == 403
    with_token = fields(ONCALL, origin="http://evil.example")
    assert outcome(access(tokens=TOKENS), CONTROL, REMOTE, with_token) == 403
    assert outcome(access(), READ, REMOTE, fields(sec_fetch_site="cross-site")) is None


def test_sites_named_in_allowed_hosts_may_send_from_any_port() -> None:
    some = access(allowed_hosts=["pages.example", ".internal", "2001:db8::7"])
    for origin, expected in (
        ("https://pages.example", None),
        ("http://pages.example:8080", None),
        ("http://a.internal", None),
        ("http://[2001:db8::7]:80", None),
        ("http://evil.example", 403),
        ("http://pages.example.evil", 403),
        # A page on the same machine isn't the daemon's, though localhost is always a valid Host.
        ("http://localhost:3000", 403),
        ("http://127.0.0.1:3000", 403),
        ("null", 403),
    ):
        assert outcome(some, SEND, REMOTE, fields(origin=origin)) == expected, origin
    # What the browser says itself comes first.
    assert (
        outcome(
            some,
            SEND,
            REMOTE,
            fields(origin="https://pages.example", sec_fetch_site="cross-site"),
        )
        == 403
    )


# Clients


def environ(peer: Peer, **given: str) -> dict[str, Any]:
    base = {"PATH_INFO": "/events", "HTTP_HOST": "localhost", "wsgi.url_scheme": "http"}
    return {**base, PEER: peer, **given}


PROXY = Peer("10.0.0.7", 80)


def test_a_trusted_proxy_says_who_the_client_is() -> None:
    behind = access(trusted_proxies=["10.0.0.7"], allow_from=["192.0.2.0/24"])
    request = environ(
        PROXY,
        HTTP_X_FORWARDED_FOR="203.0.113.1, 192.0.2.5",
        HTTP_X_FORWARDED_PROTO="http, HTTPS",
        HTTP_X_FORWARDED_HOST="first.example, billing.example",
    )

    assert behind.admit(request) is None
    assert request[CLIENT] == Client("192.0.2.5")
    assert request["REMOTE_ADDR"] == "192.0.2.5"
    assert request["wsgi.url_scheme"] == "https"
    assert request["HTTP_HOST"] == "billing.example"


@pytest.mark.parametrize("peer", [REMOTE, OURS, LOCAL])
def test_what_anyone_else_says_is_ignored(peer: Peer) -> None:
    behind = access(trusted_proxies=["10.0.0.7"], allow_from=["10.0.0.0/8", "127.0.0.1"])
    request = environ(
        peer,
        REMOTE_ADDR="as before",
        HTTP_X_FORWARDED_FOR="10.0.0.1",
        HTTP_X_FORWARDED_PROTO="https",
        HTTP_X_FORWARDED_HOST="evil.example",
    )
    refused = behind.admit(request)

    assert (refused is not None) == (peer == REMOTE)
    assert request[CLIENT].address == peer.address
    assert request["REMOTE_ADDR"] == "as before"
    assert (request["wsgi.url_scheme"], request["HTTP_HOST"]) == ("http", "localhost")


def test_unix_in_the_list_trusts_the_peers_of_the_unix_socket() -> None:
    for proxies, expected in ((["unix"], "192.0.2.5"), (["10.0.0.7"], None), ([], None)):
        behind = access(trusted_proxies=proxies)
        request = environ(OURS, HTTP_X_FORWARDED_FOR="192.0.2.5")
        behind.admit(request)
        assert request[CLIENT].address == expected
    assert not access(trusted_proxies=["unix"]).trusts(LOCAL)


def test_only_real_schemes_and_hosts_are_taken_from_a_proxy() -> None:
    behind = access(trusted_proxies=["10.0.0.7"])
    request = environ(PROXY, HTTP_X_FORWARDED_PROTO="gopher", HTTP_X_FORWARDED_HOST="a, ")
    behind.admit(request)

    assert (request["wsgi.url_scheme"], request["HTTP_HOST"]) == ("http", "localhost")
    for value, last in (
        *(("", ""), ("a", "a"), ("a, b", "b"), ("a,", ""), (" a ", "a"), ("a.b.:80", "a.b.:80")),
        *(("[::1]:5151", "[::1]:5151"), ("[::1", ""), ("a b", ""), ("a..b", ""), (".a", "")),
        *(("a" * 63, "a" * 63), ("a" * 64, ""), ("x@y", ""), ("x:123456", ""), ("x:", "")),
    ):
        assert last_of(value) == last


def test_the_client_without_x_forwarded_for_is_the_peer() -> None:
    behind = access(trusted_proxies=["10.0.0.7", "unix"])

    assert behind.client(PROXY, "") == Client("10.0.0.7", 80)
    assert behind.client(PROXY, " , ") == Client("10.0.0.7", 80)
    assert behind.client(Peer("::1", 80), "") == Client("::1", 80)
    assert behind.client(OURS, "") == Client(None, 0)
    assert behind.client(PROXY, "hidden") == Client("")


def test_clients_outside_the_allowed_networks_are_refused() -> None:
    some = access(allow_from=["10.0.0.0/8", "::1"])
    for peer, passes in (
        *((Peer("10.1.2.3"), True), (Peer("::1"), True), (Peer("::ffff:10.1.1.1"), True)),
        *((REMOTE, False), (LOCAL, False), (Peer("::2"), False), (Peer(""), False)),
        # A Unix socket has permissions of its own.
        (OURS, True),
        (OURS._replace(uid=65534), True),
    ):
        assert (some.admit(environ(peer)) is None) == passes, peer
        if peer.address is not None:
            assert some.allows_address(peer.address) == passes
    assert some.admit(environ(REMOTE)) == (
        "192.0.2.1:4000 is not in a network that may connect (allow_from)"
    )
    assert access().allows_address("192.0.2.1")


def test_the_unix_socket_is_not_exempt_for_those_behind_a_proxy_on_it() -> None:
    some = access(allow_from=["10.0.0.0/8"], trusted_proxies=["unix", "192.0.2.0/24"])

    for forwarded, passes in (
        *(("10.1.1.1", True), ("203.0.113.1", False), ("unknown", False), ("[]", False)),
        # A proxy that asks for itself.
        ("192.0.2.9", False),
    ):
        found = some.admit(environ(OURS, HTTP_X_FORWARDED_FOR=forwarded))
        assert (found is None) == passes, forwarded


def test_a_host_that_is_not_allowed_is_refused_by_name() -> None:
    some = access(allowed_hosts=["billing.example"])

    assert some.admit(environ(REMOTE, HTTP_HOST="billing.example:80")) is None
    assert some.admit(environ(REMOTE, HTTP_HOST="evil.example")) == (
        "The Host evil.example is not in allowed_hosts"
    )
    without = environ(REMOTE)
    del without["HTTP_HOST"]
    assert some.admit(without) is not None


@pytest.mark.parametrize("path", ["/ping", "/ready"])
def test_probes_are_open_to_every_client_by_any_name(path: str) -> None:
    closed = access(allow_from=["10.0.0.0/8"], allowed_hosts=["billing.example"], tokens=TOKENS)
    for beyond, passes in ((path, True), (f"{path}/", False), (f"{path}x", False), ("", False)):
        request = environ(REMOTE, PATH_INFO=beyond, HTTP_HOST="evil.example")
        assert (closed.admit(request) is None) == passes, beyond


def test_an_environ_of_another_server_has_the_address_that_it_says() -> None:
    some = access()
    for given, client in (
        ({"REMOTE_ADDR": "192.0.2.1", "REMOTE_PORT": "80"}, "192.0.2.1:80"),
        ({"REMOTE_ADDR": "192.0.2.1"}, "192.0.2.1:0"),
        ({}, ":0"),
    ):
        request = environ(LOCAL, **given)
        del request[PEER]
        some.admit(request)
        assert request[CLIENT].shown == client
        expected = None if request[PEER].address == "127.0.0.1" else 403
        assert outcome(some, CONTROL, request[PEER]) == expected


def test_clients_are_looked_at_only_where_it_matters() -> None:
    assert not access(tokens=TOKENS, allowed_hosts=["x"]).checks_clients
    assert access(allow_from=["::1"]).checks_clients
    assert access(trusted_proxies=["unix"]).checks_clients
