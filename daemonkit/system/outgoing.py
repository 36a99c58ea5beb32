"""Sessions for outgoing HTTP requests: no proxy for loopback, no `~/.netrc`."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import requests


def open_session(url: str | None = None) -> requests.Session:
    """Make a session for requests to `url`; without a URL, no proxy is used.

    Proxies and certificates come from the environment, but loopback is never proxied.
    """
    # Imported here: it takes as much start-up time as all other modules together.
    import requests  # noqa: PLC0415

    session = requests.Session()
    # This turns off everything from the environment, ~/.netrc included.
    session.trust_env = False
    session.verify = next(
        filter(None, map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))), True
    )
    if url is not None and not is_loopback(urlsplit(url).hostname or ""):
        session.proxies.update(requests.utils.get_environ_proxies(url))
    return session


def is_loopback(host: str) -> bool:
    """Whether a name or address, in any spelling, refers to this machine."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        # As the resolver does: 127.1 is an address.
        address = ip_address(socket.inet_aton(name))
    except (OSError, ValueError):
        try:
            address = ip_address(name)
        except ValueError:
            return False
    address = getattr(address, "ipv4_mapped", None) or address
    # Connecting to 0.0.0.0 or :: reaches loopback.
    return address.is_loopback or address.is_unspecified
