"""The address and the token of a daemon, from its own configuration."""

from __future__ import annotations

from typing import NamedTuple

from ..config.access import parse_tokens, split_address, unix_path
from ..config.loading import Given, load
from ..system.sockets import format_address
from .client import Address, BadAddress, parse_address

ANY_HOST = ("::", "0.0.0.0")
"""Hosts to listen on that no one can connect to."""


class Configured(NamedTuple):
    """file: the configuration; setting: that gives the address `where`; token: None if the right
    needs none, or if no token has it."""

    file: str
    setting: str
    where: str
    token: str | None

    def address(self) -> Address:
        """The address to connect to; raises BadAddress when the configuration leaves it open."""
        if unix_path(self.where) is not None:
            return parse_address(self.where, f"{self.file}: {self.setting}")
        host, port = split_address(self.where)
        if port == 0:
            raise BadAddress(
                f"{self.file}: the daemon picks a port for {self.setting}; give the URL instead"
            )
        host = "localhost" if host in ANY_HOST else host
        return parse_address(f"http://{format_address(host, port)}", self.file)


def configured(file: str, right: str | None) -> Configured:
    """Load a daemon's configuration; raises ConfigError.

    right: what requests need; other rights than `send` are those of the admin listener, if the
    daemon has one.
    """
    settings = load(Given(file)).settings
    token = next(
        (token.secrets[0] for token in parse_tokens(settings.tokens) if right in token.rights), None
    )
    if settings.admin is not None and right in ("read", "control"):
        return Configured(file, "master.admin", settings.admin, token)
    if unix_path(settings.host) is not None:
        return Configured(file, "master.host", settings.host, token)
    where = format_address(settings.host, settings.port)
    return Configured(file, "master.port", where, token)
