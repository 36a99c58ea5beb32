"""Who is in which network, and who is behind a proxy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

REMEMBERED = 4096
"""Addresses whose membership is remembered."""
_MAPPED_BITS = 96
# An address as proxies write it (RFC 7239 section 6): with a port, an IPv6 one in brackets.
_WITH_PORT = r"\[([^]]*)\](?::\d{1,5})?|([0-9.]+):\d{1,5}"


def parse_address(text: str) -> Address | None:
    """An IP address, None if it isn't one; an IPv4-mapped one as IPv4, and without a zone."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback_address(text: str) -> bool:
    """Whether an IP address is one of this machine's own loopback addresses."""
    address = parse_address(text)
    return address is not None and address.is_loopback


class Networks:
    """A set of networks: `address in networks`.

    texts: networks such as `10.0.0.0/8`, or single addresses; raises ValueError for anything else.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = [_network(text) for text in texts]
        self.contains = lru_cache(REMEMBERED)(self._contains)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        return self.contains(address)

    def _contains(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(
            address.version == network.version and address in network for network in self._networks
        )


def _network(text: str) -> Network:
    network = ip_network(text)
    # Addresses are compared as IPv4 if they are IPv4-mapped (RFC 4291 section 2.5.5.2).
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def forwarded_client(header: str, proxies: Networks) -> str | None:
    """The client that X-Forwarded-For names: the right-most address that isn't a trusted proxy, or
    the left-most if all of them are.

    "" if the last proxy that is trusted named something else than an address; None if it is empty.
    """
    first = None
    for part in reversed(header.split(",")):
        text = part.strip()
        if not text:
            continue
        found = re.fullmatch(_WITH_PORT, text)
        address = parse_address(found[found.lastindex or 0] if found else text)
        if address is None:
            return ""
        first = str(address)
        if first not in proxies:
            break
    return first
