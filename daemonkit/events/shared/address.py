"""The address of the engine: what is in it, and how it is shown."""

from __future__ import annotations

import os
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.connection import parse_url

from ...exceptions import StartError

SCHEMES = ("redis", "rediss", "redis+sentinel")
DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
_OWN = ("name", "service", "sentinel_username", "sentinel_password")
EXAMPLE = "redis://host:6379/0"


class Address(NamedTuple):
    """Where the engine is.

    options: of redis-py's connections; shown: for people, without user and password; name: of the
    daemon whose queue is meant, if it is given; sentinels: their hosts and ports, if they are to be
    asked for the primary of `service`; sentinel_options: of the connections to them.
    """

    options: dict[str, Any]
    shown: str
    name: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    sentinel_options: dict[str, Any] = {}  # noqa: RUF012


def parse(text: str) -> Address:
    """Read an address; raises StartError, which doesn't show the user and the password."""
    try:
        return _parse(text)
    except (ValueError, TypeError) as error:
        shown = _without_userinfo(text)
        raise StartError(
            f"the event queue's address {shown} is malformed: {error}; it must be like {EXAMPLE}, "
            "rediss://user:password@host:6379/0 or redis+sentinel://host1,host2/0?service=NAME"
        ) from None


def _parse(text: str) -> Address:
    parts = urlsplit(str(text))
    if parts.scheme not in SCHEMES:
        raise ValueError(f"the scheme {parts.scheme!r} is none of {', '.join(SCHEMES)}")
    given = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    own = {key: given.pop(key) for key in _OWN if key in given}
    _, _, hosts = parts.netloc.rpartition("@")
    if parts.path.strip("/") and not parts.path[1:].isdigit():
        raise ValueError("after the host comes the number of a database")
    sentinels: tuple[tuple[str, int], ...] = ()
    if parts.scheme == "redis+sentinel":
        sentinels = tuple(_sentinel(host) for host in hosts.split(","))
        if not own.get("service"):
            raise ValueError("with Sentinel, ?service=NAME must say which primary is meant")
        # The primary's host is asked for later.
        userinfo = parts.netloc[: len(parts.netloc) - len(hosts)]
        parts = parts._replace(scheme="redis", netloc=f"{userinfo}sentinel")
    elif not parts.hostname:
        raise ValueError("it has no host")
    parts = parts._replace(query=urlencode(given))
    options: dict[str, Any] = dict(parse_url(urlunsplit(parts)))
    for name, value in options.items():
        if name in _FILES and not os.path.exists(value):
            raise ValueError(f"{name} names {value}, which doesn't exist")
    unknown = set(given) & set(options) - _KNOWN
    if unknown:
        raise ValueError(f"unknown parameter {min(unknown)!r}")
    credentials = {
        key.removeprefix("sentinel_"): value
        for key, value in own.items()
        if key.startswith("sentinel_")
    }
    return Address(
        options,
        _without_userinfo(text),
        own.get("name"),
        sentinels,
        own.get("service", ""),
        credentials,
    )


_FILES = {"ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"}
_KNOWN = {"db", "client_name", "protocol", "ssl_cert_reqs", "ssl_check_hostname"} | _FILES


def _sentinel(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a sentinel has no host")
    return parts.hostname, parts.port or SENTINEL_PORT


def _without_userinfo(text: str) -> str:
    # Not by parsing, for it may be malformed.
    scheme, mark, rest = unquote(str(text)).partition("://")
    before, at, after = rest.rpartition("@")
    kept = after if at else before or rest
    return f"{scheme}{mark}{kept.partition('?')[0]}"
