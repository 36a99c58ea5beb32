"""HTTP requests to a running daemon, over TCP or a Unix socket; without proxies and `~/.netrc`."""

from __future__ import annotations

import json
import re
import select
import socket
from http.client import HTTPConnection, HTTPException, HTTPSConnection, IncompleteRead
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .._version import __version__
from ..exceptions import DaemonkitError
from ..runtime.clock import monotonic

DEFAULT_URL = "http://localhost:5151"
UNIX_PREFIX = "unix:"
LARGEST_ANSWER = 64 * 2**20
"""Bytes of an answer's body."""
_PORTS = {"http": 80, "https": 443}
_FORM = "http://HOST:PORT, https://HOST or unix:/PATH"


class BadAddress(DaemonkitError):
    """What was given as a daemon's address isn't one."""

    exit_status = 2


class Unreachable(DaemonkitError):
    """No answer was received.

    was_sent: whether the daemon may have received the request nevertheless.
    """

    exit_status = 3

    def __init__(self, message: str, was_sent: bool = False) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class Address(NamedTuple):
    """Where a daemon listens. text: as it was given; host: the path of a Unix socket."""

    text: str
    scheme: str
    host: str
    port: int = 0
    prefix: str = ""


def parse_address(text: str, origin: str = "") -> Address:
    """Read an address; raises BadAddress. origin: what to name in the error, if not the text."""
    name = origin or "the URL"
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path.startswith("/") or "\0" in path:
            raise BadAddress(f"{name} must be {_FORM}, not {text!r}")
        return Address(text, "unix", path)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in _PORTS or not re.fullmatch("[!-~]+", text):
        # It may have a password in it.
        shown = "" if "@" in text else f", not {text!r}"
        raise BadAddress(f"{name} must be {_FORM}{shown}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise BadAddress(f"{name} must be {_FORM}, without a user name, `?` and `#`")
    return Address(text, parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


class Answer(NamedTuple):
    """An answer to a request."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body's value, None if it isn't JSON."""
        try:
            return json.loads(self.body)
        # Nested too deeply, for example.
        except (ValueError, RecursionError):
            return None

    def message(self) -> Any:
        """The `message` of the daemon's envelope, None in any other answer."""
        value = self.json()
        return value.get("message") if isinstance(value, dict) else None

    def said(self) -> str:
        """In one line, what was answered in place of what was asked for."""
        message = self.message()
        reason = message if isinstance(message, str) else self.reason
        return f"{self.status} {reason}".rstrip()


class Client:
    """Sends requests on one connection, which is opened and reopened as needed.

    token: for the field Authorization; timeout: seconds for each request.
    """

    def __init__(self, address: Address, token: str | None = None, timeout: float = 10.0) -> None:
        self.address = address
        self._fields = {"User-Agent": f"daemonkit/{__version__}"}
        if token is not None:
            self._fields["Authorization"] = f"Bearer {token}"
        self._timeout = timeout
        self._connection: HTTPConnection | None = None

    def get(self, path: str) -> Answer:
        """GET a path; raises Unreachable."""
        return self.request("GET", path)

    def post(self, path: str, body: bytes, content_type: str = "application/json") -> Answer:
        """POST to a path; raises Unreachable."""
        return self.request("POST", path, body, {"Content-Type": content_type})

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        fields: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request, once; raises Unreachable."""
        until, was_sent = monotonic() + self._timeout, False
        try:
            connection = self._connected()
            was_sent = True
            target = self.address.prefix + path
            connection.request(method, target, body, {**self._fields, **(fields or {})})
            connection.sock.settimeout(max(0.001, until - monotonic()))
            response = connection.getresponse()
            data = response.read(LARGEST_ANSWER + 1)
            if len(data) > LARGEST_ANSWER:
                raise HTTPException(f"the answer has more than {LARGEST_ANSWER} bytes")
            # Reading up to a limit doesn't notice that there is less.
            if response.length:
                raise IncompleteRead(data, response.length)
        except (OSError, HTTPException, UnicodeError) as error:
            self.close()
            reason = _reason(error, was_sent, self._timeout)
            raise Unreachable(f"cannot reach {self.address.text}: {reason}", was_sent) from None
        except BaseException:
            self.close()
            raise
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, response.reason, headers, data)

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> HTTPConnection:
        if self._connection is not None and not _is_open(self._connection.sock):
            self.close()
        if self._connection is None:
            self._connection = _connection(self.address, self._timeout)
            self._connection.connect()
        self._connection.sock.settimeout(self._timeout)
        return self._connection


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: Address, timeout: float) -> HTTPConnection:
    if address.scheme == "unix":
        return _UnixConnection(address.host, timeout)
    kind = HTTPSConnection if address.scheme == "https" else HTTPConnection
    return kind(address.host, address.port, timeout=timeout)


def _is_open(sock: socket.socket | None) -> bool:
    """Whether an idle connection can be used again: nothing is to be read from it, not even its
    end."""
    return sock is not None and not select.select([sock], [], [], 0)[0]


def _reason(error: Exception, was_sent: bool, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no {'answer' if was_sent else 'connection'} within {timeout:g} s"
    # RemoteDisconnected and others are both.
    if isinstance(error, ConnectionError) and was_sent:
        return "the connection was closed before an answer"
    if isinstance(error, HTTPException):
        return f"not an answer in HTTP: {type(error).__name__}: {str(error)[:100]}"
    return getattr(error, "strerror", None) or str(error)
