from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonkit.system.networks import (
    Networks,
    forwarded_client,
    is_loopback_address,
    parse_address,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
    ],
)
def test_an_address_is_read_in_one_form(text: str, shown: str) -> None:
    assert str(parse_address(text)) == shown


@pytest.mark.parametrize(
    "text",
    ["", "x", "%eth0", "1.2.3", "127.1", "01.2.3.4", "1.2.3.4/8", "[::1]", "::1]", "٣.2.3.4"],
)
def test_what_is_not_an_address_is_none(text: str) -> None:
    assert parse_address(text) is None
    assert not is_loopback_address(text)
    assert text not in Networks(["0.0.0.0/0", "::/0"])


def test_loopback_is_all_of_127_and_one_address_of_ipv6() -> None:
    loopback = ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "::1%lo")
    assert all(map(is_loopback_address, loopback))
    assert not any(map(is_loopback_address, ("128.0.0.1", "::2", "::", "0.0.0.0", "localhost")))


def test_networks_contain_addresses_of_their_own_family() -> None:
    networks = Networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7", "fe80::/10"])

    for inside in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8::5", "192.0.2.7", "fe80::1%eth0"):
        assert inside in networks
    for outside in ("11.0.0.1", "192.0.2.8", "2001:db9::1", "::a00:1", "::10.0.0.1"):
        assert outside not in networks
    assert "::1" not in Networks(["0.0.0.0/0"])
    assert "127.0.0.1" not in Networks(["::/0"])


def test_an_ipv4_mapped_network_contains_the_same_as_the_ipv4_one() -> None:
    networks = Networks(["::ffff:10.0.0.0/104", "::ffff:192.0.2.1"])

    assert [a in networks for a in ("10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1")] == [True] * 3
    assert [a in networks for a in ("11.1.2.3", "192.0.2.2", "::1")] == [False] * 3
    assert "2001:db8::1" in Networks(["::/0"])


def test_no_networks_are_false_and_contain_nothing() -> None:
    assert not Networks([])
    assert "127.0.0.1" not in Networks([])
    assert Networks(["::1"])


@pytest.mark.parametrize("text", ["example.com", "10.0.0.1/8", "", "unix", "10.0.0.0/33"])
def test_what_is_not_a_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"network|host bits"):
        Networks(["10.0.0.0/8", text])


# X-Forwarded-For

PROXIES = Networks(["10.0.0.0/8", "::1"])


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 192.0.2.2", "192.0.2.2"),
        ("192.0.2.1, 10.0.0.1", "192.0.2.1"),
        ("192.0.2.9,192.0.2.1 ,10.0.0.1,\t::1", "192.0.2.1"),
        ("192.0.2.1:5000, 10.0.0.1:80", "192.0.2.1"),
        ("[2001:db8::1]:5000, [::1]", "2001:db8::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1"),
        ("fe80::1%eth0, 10.0.0.1", "fe80::1"),
        ("192.0.2.1, , 10.0.0.1,", "192.0.2.1"),
        # Only proxies: the first of them asks for itself.
        ("10.0.0.2, 10.0.0.1", "10.0.0.2"),
        ("10.0.0.1", "10.0.0.1"),
        # What somebody else than a trusted proxy wrote is never looked at.
        ("10.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("nonsense, 192.0.2.1", "192.0.2.1"),
    ],
)
def test_the_client_is_the_right_most_address_that_is_not_a_proxy(header: str, client: str) -> None:
    assert forwarded_client(header, PROXIES) == client


@pytest.mark.parametrize(
    "header",
    [
        *("unknown", "_hidden", "192.0.2.1, x", "192.0.2.1, x, 10.0.0.1", "1.2.3.4:", "1.2.3.4:x"),
        *("[::1", "::1]", "[]", "[]:80", "1.2.3.4:123456", '"1.2.3.4"', "1.2.3.4;", "for=1.2.3.4"),
    ],
)
def test_a_client_that_is_not_an_address_is_unknown(header: str) -> None:
    assert forwarded_client(header, PROXIES) == ""


def test_an_empty_header_names_nobody() -> None:
    assert [forwarded_client(header, PROXIES) for header in ("", " ", ",", " , ,")] == [None] * 4


TRUSTED, UNTRUSTED = (
    st.sampled_from([IPv4Address("10.0.0.1"), IPv4Address("10.255.0.9"), IPv6Address("::1")]),
    st.ip_addresses(v=4, network="192.0.2.0/24") | st.ip_addresses(v=6, network="2001:db8::/32"),
)
PORTS = st.none() | st.integers(0, 65535)


def spelled(address: IPv4Address | IPv6Address, port: int | None, variant: int) -> str:
    """An address as some proxy writes it."""
    text = str(address) if variant % 2 else address.exploded
    if isinstance(address, IPv4Address):
        text = f"::ffff:{address}" if variant >= 2 else str(address)
    elif variant >= 2:
        text += "%eth0"
    if port is None:
        return f"[{text}]" if variant == 3 and ":" in text else text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


GARBAGE = st.text(st.characters(max_codepoint=255, exclude_characters=","), max_size=12)
FORGED = st.lists(GARBAGE | TRUSTED.map(str) | UNTRUSTED.map(str), max_size=4)


@given(
    forged=FORGED,
    client=UNTRUSTED,
    chain=st.lists(TRUSTED, max_size=3),
    ports=st.lists(PORTS, min_size=4, max_size=4),
    variants=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    separator=st.sampled_from([",", ", ", " ,\t", ", , "]),
)
def test_a_client_can_claim_what_it_likes(
    forged: list[str],
    client: IPv4Address | IPv6Address,
    chain: list[IPv4Address | IPv6Address],
    ports: list[int | None],
    variants: list[int],
    separator: str,
) -> None:
    """Each proxy appends the address that it was called from, however it spells it."""
    appended = [
        spelled(address, port, variant)
        for address, port, variant in zip([client, *chain], ports, variants, strict=False)
    ]

    assert forwarded_client(separator.join([*forged, *appended]), PROXIES) == str(client)


@given(st.text(st.characters(max_codepoint=255), max_size=40))
def test_garbage_is_no_client_or_an_address(header: str) -> None:
    found = forwarded_client(header, PROXIES)

    assert not found or str(parse_address(found)) == found
