"""The values of the settings for access control."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..system.networks import Networks, parse_address
from .checks import BadValue, Check, or_none
from .secrets import Secret

RIGHTS = ("send", "read", "control")
INTAKES = ("http", "udp")
SHORTEST_TOKEN = 16
UNIX = "unix"
"""In `trusted_proxies`: the peers of a Unix socket."""
UNIX_PREFIX = "unix:"
_TOKEN = r"[!-~]+"
_NAME = r"[A-Za-z0-9_.-]{1,64}"
_HOST = r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?"


class Token(NamedTuple):
    """Who may do what with any of these secrets."""

    name: str
    secrets: tuple[str, ...]
    rights: frozenset[str]


def parse_tokens(value: Mapping[str, Any]) -> list[Token]:
    """The tokens of the checked setting `tokens`."""
    tokens = []
    for name, given in value.items():
        fields = given if isinstance(given, Mapping) else {"token": given}
        secrets = fields["token"]
        listed = tuple(map(str, secrets if isinstance(secrets, list) else [secrets]))
        tokens.append(Token(name, listed, frozenset(fields.get("may", ["send"]))))
    return tokens


def unix_path(text: str) -> str | None:
    """The path in `unix:/path`, None for any other address."""
    return text.removeprefix(UNIX_PREFIX) if text.startswith(UNIX_PREFIX) else None


def split_address(text: str) -> tuple[str, int]:
    """The host and port of a checked address."""
    host, _, port = text.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _tokens(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise BadValue("must be a mapping of names to tokens")
    seen: set[str] = set()
    for name, given in value.items():
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise BadValue(f"must have names of letters, digits, `_`, `.` and `-`, not {name!r}")
        _check_token(name, given, seen)
    return dict(value)


def _check_token(name: str, given: Any, seen: set[str]) -> None:
    fields = given if isinstance(given, Mapping) else {"token": given}
    if "token" not in fields or not fields.keys() <= {"token", "may"}:
        raise BadValue(f"must have a !secret for {name}, or a mapping with `token` and `may`")
    may = fields.get("may", ["send"])
    if not isinstance(may, list) or not may or not all(right in RIGHTS for right in may):
        raise BadValue(f"must have a list of {', '.join(RIGHTS)} as `may` of {name}")
    secrets = fields["token"]
    for secret in secrets if isinstance(secrets, list) and secrets else [secrets]:
        if not isinstance(secret, Secret):
            raise BadValue(f"must have a !secret as the token of {name}, or a list of them")
        if len(secret) < SHORTEST_TOKEN or not re.fullmatch(_TOKEN, secret):
            raise BadValue(
                f"must have a token of at least {SHORTEST_TOKEN} printable ASCII characters "
                f"without spaces for {name}"
            )
        if secret in seen:
            raise BadValue(f"must have a token for {name} that is not there twice")
        seen.add(secret)


def _networks(value: Any, *, unix: bool) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError
    Networks(item for item in value if not (unix and item == UNIX))
    return list(value)


def _hosts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    if not all(isinstance(item, str) for item in value):
        raise TypeError
    if not all(re.fullmatch(_HOST, item) or parse_address(item.strip("[]")) for item in value):
        raise ValueError
    return [item.lower() for item in value]


def _intakes(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    if not all(item in INTAKES for item in value) or len(set(value)) < len(value):
        raise ValueError
    return list(value)


def _host(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    path = unix_path(value)
    if not value or "\0" in value or (path is not None and not path.startswith("/")):
        raise ValueError
    return value


def _address(value: Any) -> str:
    text = _host(value)
    if unix_path(text) is None:
        host, port = split_address(text)
        if not host or not 0 <= port <= 65535:
            raise ValueError
    return text


TOKENS = Check("a mapping of names to tokens", _tokens)
NETWORKS = Check("a list of networks", lambda v: _networks(v, unix=False), '10.0.0.0/8 or "::1"')
PROXIES = Check(
    "a list of networks or `unix`", lambda v: _networks(v, unix=True), "10.0.0.7 or unix"
)
HOSTS = Check("a list of host names", _hosts, "billing.example or .example")
INTAKE = Check("a list of http, udp, each at most once", _intakes)
HOST = Check("an address, or unix: and an absolute path", _host)
ADDRESS_OR_NONE = or_none(
    Check("HOST:PORT or unix:/PATH", _address, "127.0.0.1:5152 or unix:/run/billing/admin.sock")
)
