"""Who may do what: networks, proxies, host names, tokens, and requests from other sites."""

from __future__ import annotations

import hmac
import os
import re
import socket
from contextlib import suppress
from typing import Any, NamedTuple

from werkzeug.datastructures import Headers
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized

from ..config.access import UNIX, Token, parse_tokens
from ..config.defaults import Settings
from ..system.networks import Networks, forwarded_client, is_loopback_address, parse_address
from ..system.sockets import format_address
from .head import HOST
from .pool import PROBES

SEND, READ, CONTROL = "send", "read", "control"
LOCALHOST = "localhost"
PEER, CLIENT = "daemonkit.peer", "daemonkit.client"
"""Keys of the WSGI environ: a Peer and a Client."""
SENDER = "daemonkit_sender"
"""The name of the request's token, in `flask.g`."""
FORWARDED, FORWARDED_PREFIX = ("forwarded", "via", "x-real-ip"), "x-forwarded-"
"""Fields that a proxy adds."""
_SCHEME = "bearer "
_LABEL = "[A-Za-z0-9_-]{1,63}"
# Flask refuses a Host that is none of these.
_NAME = rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?"


class Peer(NamedTuple):
    """The other end of a connection.

    address: None for a Unix socket; uid: the user of a Unix socket's peer (unix(7), SO_PEERCRED);
    is_admin: whether it is connected to the admin listener.
    """

    address: str | None
    port: int = 0
    uid: int | None = None
    is_admin: bool = False


class Client(NamedTuple):
    """Who sent a request, perhaps through a proxy.

    address: None for a Unix socket, "" if the proxy doesn't tell; port: None behind a proxy.
    """

    address: str | None
    port: int | None = None

    @property
    def shown(self) -> str:
        """For the logs, with the port if that is known."""
        if self.address is None:
            return UNIX
        if self.port is None:
            return self.address or "unknown"
        return format_address(self.address, self.port)


class TokenMissing(Unauthorized):
    """401, with the scheme that is expected (RFC 6750 section 3)."""

    def get_headers(self, *arguments: Any, **keywords: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*arguments, **keywords), ("WWW-Authenticate", "Bearer")]


class Access:
    """The settings for access control, applied to requests."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = parse_tokens(settings.tokens)
        self.guarded = frozenset(right for token in self._tokens for right in token.rights)
        """Rights that need a token."""
        self.takes_http = "http" in settings.intake
        self.has_admin = settings.admin is not None
        self._allowed = Networks(settings.allow_from)
        proxies = settings.trusted_proxies
        self._proxies = Networks(proxy for proxy in proxies if proxy != UNIX)
        self._trusts_unix = UNIX in proxies
        self._has_proxies = bool(proxies)
        self._hosts = tuple(map(_plain_name, settings.allowed_hosts))
        self._own_names = {LOCALHOST, *_machine_names()}
        self.checks_clients = bool(settings.allow_from or proxies)
        """Whether it matters who the client is."""
        self.checks_heads = bool(self._tokens or self._hosts or proxies or not self.takes_http)
        """Whether a request's head decides more than what it asks for."""

    # Clients

    def trusts(self, peer: Peer) -> bool:
        """Whether the peer is a proxy whose `X-Forwarded-*` fields are believed."""
        if not self._has_proxies:
            return False
        return self._trusts_unix if peer.address is None else peer.address in self._proxies

    def client(self, peer: Peer, forwarded_for: str) -> Client:
        """The client; forwarded_for: X-Forwarded-For of a trusted proxy, "" of any other peer."""
        found = forwarded_client(forwarded_for, self._proxies) if forwarded_for else None
        return Client(peer.address, peer.port) if found is None else Client(found)

    def allows(self, client: Client) -> bool:
        """Whether the client is in an allowed network."""
        return not self._allowed or client.address is None or client.address in self._allowed

    def allows_address(self, address: str) -> bool:
        """The same for the sender of a datagram."""
        return not self._allowed or address in self._allowed

    def admit(self, environ: dict[str, Any]) -> str | None:
        """Note who the client is, as a trusted proxy says; returns why it is refused, if it is."""
        peer = environ.get(PEER)
        if peer is None:
            # Another server's, or a test client's; without an address, it is nobody's.
            peer = Peer(environ.get("REMOTE_ADDR", ""), int(environ.get("REMOTE_PORT") or 0))
            environ[PEER] = peer
        # Most daemons; the rest takes a while.
        if not self.checks_clients and not self._hosts:
            environ[CLIENT] = Client(peer.address, peer.port)
            return None
        is_trusted = self.trusts(peer)
        client = self.client(peer, environ.get("HTTP_X_FORWARDED_FOR", "") if is_trusted else "")
        environ[CLIENT] = client
        if is_trusted:
            _believe(environ, client)
        if environ.get("PATH_INFO") in PROBES:
            return None
        if not self.allows(client):
            return f"{client.shown} is not in a network that may connect (allow_from)"
        host = environ.get("HTTP_HOST", "")
        if self.allows_host(host):
            return None
        return f"The Host {host or '(none)'} is not in allowed_hosts"

    # Host names

    def allows_host(self, host: str) -> bool:
        """Whether clients may call the daemon by this Host, with or without a port."""
        if not self._hosts:
            return True
        name = _name_of(host)
        return name == LOCALHOST or is_loopback_address(name) or self._is_named(name)

    def _is_named(self, name: str) -> bool:
        return any(
            name == allowed or (allowed.startswith(".") and f".{name}".endswith(allowed))
            for allowed in self._hosts
        )

    def _is_safe_for_control(self, host: str) -> bool:
        """Whether a browser can't have been led here by a foreign name (DNS rebinding)."""
        if self._hosts:
            return self.allows_host(host)
        name = _name_of(host)
        return name in self._own_names or parse_address(name) is not None

    # Rights

    def sender(self, authorization: str) -> tuple[bool, str | None]:
        """Whether a request may send events, and the name of its token."""
        token = self._token(authorization)
        may = SEND not in self.guarded or (token is not None and SEND in token.rights)
        return may, None if token is None else token.name

    def check(self, right: str, peer: Peer, headers: Headers) -> str | None:
        """Check that a request has a right; returns the name of its token, if any.

        Raises TokenMissing or Forbidden.
        """
        authorization = headers.get("Authorization", "")
        token = self._token(authorization)
        if right in self.guarded:
            if token is None:
                what = "a valid" if authorization else "a"
                raise TokenMissing(f"This needs {what} token: Authorization: Bearer TOKEN")
            if right not in token.rights:
                raise Forbidden(f"The token {token.name} may not {right}")
        elif right == CONTROL and not self._is_same_machine(peer, headers):
            raise Forbidden("Without a token for it, control is for clients on the same machine")
        if right == CONTROL and peer.address is not None:
            host = headers.get("Host", "")
            if not self._is_safe_for_control(host):
                raise Forbidden(f"Control doesn't accept the Host {host}; see allowed_hosts")
        if right != READ:
            self._refuse_other_sites(headers)
        return None if token is None else token.name

    def rights(self, peer: Peer, headers: Headers) -> list[str]:
        """The rights that a request has."""
        found = []
        for right in (SEND, READ, CONTROL):
            with suppress(HTTPException):
                self.check(right, peer, headers)
                found.append(right)
        return found

    def _token(self, authorization: str) -> Token | None:
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            return None
        given = authorization[len(_SCHEME) :].strip().encode("latin-1", "replace")
        found = None
        # All of them, so that the time says nothing about the tokens.
        for token in self._tokens:
            for secret in token.secrets:
                if hmac.compare_digest(secret.encode(), given):
                    found = token
        return found

    def _is_same_machine(self, peer: Peer, headers: Headers) -> bool:
        if peer.address is None:
            is_near = peer.uid in (0, os.geteuid())
            # Anyone may be behind a proxy, but not behind the admin socket.
            if peer.is_admin:
                return is_near
        else:
            is_near = is_loopback_address(peer.address)
        return is_near and not self._has_proxies and not any(map(_is_of_proxy, headers.keys()))

    def _refuse_other_sites(self, headers: Headers) -> None:
        """Raise Forbidden for a request that a browser sends for a page of another site."""
        site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
        if site is not None:
            if site not in ("same-origin", "none"):
                raise Forbidden(f"A page of another site sent this (Sec-Fetch-Site: {site})")
        elif origin is not None and not self._is_own_origin(
            origin.lower(), headers.get("Host", "").lower()
        ):
            raise Forbidden(f"A page of another site sent this (Origin: {origin})")

    def _is_own_origin(self, origin: str, host: str) -> bool:
        scheme, _, authority = origin.partition("://")
        usual = {"http": ":80", "https": ":443"}.get(scheme, "")
        same = authority.removesuffix(usual) == host.removesuffix(usual)
        return bool(authority) and (same or self._is_named(_name_of(authority)))


def _believe(environ: dict[str, Any], client: Client) -> None:
    """Replace what a trusted proxy knows better."""
    if client.address is not None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client.address, "0"
    scheme = last_of(environ.get("HTTP_X_FORWARDED_PROTO", "")).lower()
    if scheme in ("http", "https"):
        environ["wsgi.url_scheme"] = scheme
    host = last_of(environ.get("HTTP_X_FORWARDED_HOST", ""))
    if host and HOST.fullmatch(host.encode("latin-1", "replace")):
        environ["HTTP_HOST"] = host


def last_of(value: str) -> str:
    """The last item of a list in a header field, "" if it isn't a name, perhaps with a port."""
    text = value.rpartition(",")[2].strip()
    return text if re.fullmatch(_NAME, text) else ""


def _is_of_proxy(name: str) -> bool:
    name = name.lower()
    return name in FORWARDED or name.startswith(FORWARDED_PREFIX)


def _name_of(host: str) -> str:
    """The name or address in a Host field."""
    inside = host[1:].partition("]") if host.startswith("[") else host.partition(":")
    return _plain_name(inside[0])


def _plain_name(name: str) -> str:
    """A name or an address in the one form that is compared."""
    text = name.strip("[]")
    address = parse_address(text) if ":" in text else None
    return text.lower().removesuffix(".") if address is None else str(address)


def _machine_names() -> set[str]:
    name = socket.gethostname().lower()
    return {name, name.partition(".")[0]}
