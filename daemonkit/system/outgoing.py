"""Sessions for outgoing HTTP requests: loopback is never proxied, and `~/.netrc` isn't read."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests


def open_session(url: str | None = None) -> requests.Session:
    """A session for requests to `url`, through the environment's proxy if it isn't loopback.

    Without a URL no proxy is used at all.
    """
    # Imported late: it costs as much start-up time as everything else together.
    import requests  # noqa: PLC0415

    session = requests.Session()
    # This stands for all of it, ~/.netrc included; what is wanted is put back.
    session.trust_env = False
    session.verify = next(
        filter(None, map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))), True
    )
    if url is not None and not is_loopback(urlsplit(url).hostname or ""):
        session.proxies.update(requests.utils.get_environ_proxies(url))
    return session


def is_loopback(host: str) -> bool:
    """Whether a name or address leads to this very machine, however it is spelt."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        # As the resolver reads it: 127.1 is an address, too.
        address = ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        try:
            address = ip_address(name)
        except ValueError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    # Connecting to 0.0.0.0 or :: is connecting to loopback.
    return address.is_loopback or address.is_unspecified
