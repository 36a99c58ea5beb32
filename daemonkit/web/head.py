"""The head of a request: the request line and the header fields (RFC 9112)."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from waitress.utilities import Error

MAX_FIELDS = 1000
"""Header fields in a request."""
MAX_LENGTH_DIGITS = 18
"""Digits in a Content-Length; with more, the body is over any limit."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_LINE = re.compile(rb"(%b) ([!-~\x80-\xff]+) HTTP/([0-9])\.([0-9])" % TOKEN)
# Matching the spaces around the value apart would take time by the cube of their number.
FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % TOKEN)
"""A header or trailer field (RFC 9112 section 5), with spaces around its value."""
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(.*)", re.IGNORECASE)
# RFC 3986 section 3.2.2, without the comma, which joins the values of repeated fields.
HOST = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+(?:%25[!-~]+)?\]|(?:[0-9A-Za-z._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*)"
    rb"(?::[0-9]{0,5})?"
)
_SINGLE = (b"host", b"content-length", b"content-type")
"""Fields that must not be repeated."""


class Refused(Exception):
    """A request that is answered with an error, after which its connection is closed."""

    def __init__(self, text: str, code: int = 400, reason: str = "Bad Request") -> None:
        super().__init__(text)
        self.error = Error(text)
        self.error.code, self.error.reason = code, reason


class Head(NamedTuple):
    """A request's head.

    target: as received; path: decoded, its bytes as Latin-1 (PEP 3333); version: `1.0` or `1.1`;
    fields: by their names in capitals with underscores, the values of repeated ones joined with
    commas; length: of the body in bytes, None if it is chunked.
    """

    command: str
    target: str
    path: str
    query: str
    version: str
    fields: dict[str, str]
    length: int | None

    @property
    def closes(self) -> bool:
        """Whether the connection is closed after the answer (RFC 9112 section 9.3)."""
        connection = self.fields.get("CONNECTION", "")
        return connection == "close" or (self.version == "1.0" and connection != "keep-alive")


def check_lines(head: bytes | bytearray) -> None:
    """Refuse a bare CR or LF (RFC 9112 section 2.2); a CR at the end may be half of CRLF."""
    ends = head.count(b"\r\n")
    if head.count(b"\n") != ends or head.count(b"\r", 0, -1) > ends:
        raise Refused("a line must end with CRLF")


def parse_head(head: bytes) -> Head:
    """Parse a request's head, up to and with its empty line; raises Refused."""
    check_lines(head)
    line, *lines = head[:-4].split(b"\r\n")
    command, target, version = _parse_line(line)
    fields = _parse_fields(lines)
    authority, path, query = _parse_target(command, target)
    if authority is not None:
        # It replaces the field Host (RFC 9112 section 3.2.2).
        fields["HOST"] = authority
    elif version == "1.1" and "HOST" not in fields:
        raise Refused("the field Host is missing")
    if HOST.fullmatch(fields.get("HOST", "").encode("latin-1")) is None:
        raise Refused("the field Host is not a host with an optional port")
    length = _body_length(fields, version)
    if "CONTENT_LENGTH" in fields:
        fields["CONTENT_LENGTH"] = str(length)
    if connection := fields.get("CONNECTION"):
        options = [option.strip(" \t") for option in connection.lower().split(",")]
        decisive = [option for option in ("close", "keep-alive") if option in options]
        fields["CONNECTION"] = decisive[0] if decisive else connection
    return Head(command, target.decode("latin-1"), path, query, version, fields, length)


def _parse_line(line: bytes) -> tuple[str, bytes, str]:
    found = _LINE.fullmatch(line)
    if found is None:
        raise Refused("the request line is not METHOD TARGET HTTP/1.1")
    method, target, major, minor = found.groups()
    # The connection preface of HTTP/2 (RFC 9113 section 3.4).
    if method == b"PRI":
        raise Refused("this server speaks HTTP/1.1, not HTTP/2")
    if major != b"1":
        text = f"this server speaks HTTP/1.1, not HTTP/{major.decode()}.{minor.decode()}"
        raise Refused(text, 505, "HTTP Version Not Supported")
    if method != method.upper():
        raise Refused("a method is written in capitals")
    if method == b"CONNECT":
        raise Refused("CONNECT is for proxies", 501, "Not Implemented")
    # A higher minor version is answered as the highest one known (RFC 9110 section 2.5).
    return method.decode(), target, "1.0" if minor == b"0" else "1.1"


def _parse_target(command: str, target: bytes) -> tuple[str | None, str, str]:
    """The authority if there is one, the path and the query (RFC 9112 section 3.2)."""
    authority = None
    if target == b"*":
        if command != "OPTIONS":
            raise Refused("the target * is for OPTIONS")
        return None, "*", ""
    if not target.startswith(b"/"):
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise Refused("the target must be a path that begins with /, or an http URL")
        # A user name before it, and a fragment below, are dropped: some clients send them.
        authority = found[1].rpartition(b"@")[2].decode("latin-1")
        target = found[2]
        if not authority or HOST.fullmatch(authority.encode("latin-1")) is None:
            raise Refused("the target's host is invalid")
    path, _, query = target.partition(b"#")[0].partition(b"?")
    return authority, unquote_to_bytes(path or b"/").decode("latin-1"), query.decode("latin-1")


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > MAX_FIELDS:
        text = f"more than {MAX_FIELDS} header fields"
        raise Refused(text, 431, "Request Header Fields Too Large")
    fields: dict[str, str] = {}
    for line in lines:
        found = FIELD.fullmatch(line)
        if found is None:
            if line[:1] in (b" ", b"\t"):
                # Permitted by RFC 9112 section 5.2, and a source of ambiguity.
                raise Refused("a header field must not be folded")
            raise Refused("a header field is not NAME: VALUE")
        name, value = found.groups()
        # After the translation to WSGI, it would be the same as the name with hyphens.
        if b"_" in name:
            continue
        key = name.upper().replace(b"-", b"_").decode()
        text = value.strip(b" \t").decode("latin-1")
        if key in fields:
            if name.lower() in _SINGLE:
                raise Refused(f"the field {name.decode()} is there twice")
            text = f"{fields[key]}, {text}"
        fields[key] = text
    return fields


def _body_length(fields: dict[str, str], version: str) -> int | None:
    """The length of the body, None if it is chunked (RFC 9112 section 6.3)."""
    coding = fields.pop("TRANSFER_ENCODING", None)
    length = fields.get("CONTENT_LENGTH")
    if coding is None:
        return 0 if length is None else _parse_length(length)
    if version == "1.0":
        raise Refused("Transfer-Encoding needs HTTP/1.1")
    if length is not None:
        raise Refused("Content-Length together with Transfer-Encoding")
    if coding.lower() != "chunked":
        codings = {part.strip(" \t").lower() for part in coding.split(",")}
        if codings - {"chunked", ""}:
            text = "the only Transfer-Encoding supported is chunked"
            raise Refused(text, 501, "Not Implemented")
        raise Refused("Transfer-Encoding must be chunked, once")
    return None


def _parse_length(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise Refused("Content-Length is not a number")
    digits = text.lstrip("0")
    return int(digits or "0") if len(digits) <= MAX_LENGTH_DIGITS else sys.maxsize
