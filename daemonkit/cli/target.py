"""Which daemon a command talks to, and with which token."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from .client import DEFAULT_URL, Address, BadAddress, Client, parse_address

URL_VARIABLE = "DAEMONKIT_URL"
TOKEN_VARIABLE = "DAEMONKIT_TOKEN"
_TOKEN = "[!-~]+"


class Target(NamedTuple):
    """What the command line says about the daemon to talk to.

    config: the file of the daemon's configuration, token_file: a file with a token, or None.
    """

    url: str | None = None
    config: str | None = None
    token_file: str | None = None

    def client(self, right: str | None, timeout: float) -> Client:
        """Make a client; right: the one that its requests need, None if none is needed.

        The URL wins over the configuration, and that over the environment. Raises BadAddress for
        what is no address or no token, and ConfigError.
        """
        address = None if self.url is None else parse_address(self.url)
        token = None if self.token_file is None else _read_token(self.token_file)
        if self.config is not None and (address is None or token is None):
            # It takes longer than the request, because of YAML.
            from .configured import configured  # noqa: PLC0415

            found = configured(self.config, right)
            address = address or found.address()
            token = token or found.token
        if token is None and (text := os.environ.get(TOKEN_VARIABLE)):
            token = _checked(text, f"${TOKEN_VARIABLE}")
        return Client(address or _default_address(), token, timeout)


def _default_address() -> Address:
    url = os.environ.get(URL_VARIABLE)
    return parse_address(url, f"${URL_VARIABLE}") if url else parse_address(DEFAULT_URL)


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not valid UTF-8"
        raise BadAddress(f"cannot read the token in {path}: {reason}") from None
    return _checked(text.strip("\r\n"), f"the token in {path}")


def _checked(text: str, name: str) -> str:
    if not text:
        raise BadAddress(f"{name} is empty")
    if not re.fullmatch(_TOKEN, text):
        raise BadAddress(f"{name} must be printable ASCII characters without spaces")
    return text
