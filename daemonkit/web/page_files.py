"""The files of the status page, and the headers that they are answered with."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from flask import Response, request
from werkzeug.exceptions import NotFound
from werkzeug.http import generate_etag

INDEX = "index.html"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Only the page's own files, no inline code, and no text as markup (trusted types).
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Kept, but asked for again: after an upgrade all files must be of one version.
    "Cache-Control": "no-cache",
}


class PageFile(NamedTuple):
    """A file of the page; etag: changes with its content (RFC 9110 section 8.8.3)."""

    body: bytes
    content_type: str
    etag: str


class PageFiles:
    """The files in `page/`, read at the first request and then kept."""

    def __init__(self) -> None:
        self._files: dict[str, PageFile] | None = None

    def files(self) -> dict[str, PageFile]:
        """All of them by their names."""
        # Two threads may both read them; either result will do.
        if self._files is None:
            self._files = _read()
        return self._files

    def response(self, name: str = INDEX) -> Response:
        """The answer to the current request for a file, 304 if the client has it; raises NotFound.

        It says nothing about the daemon, so no right is needed for it.
        """
        file = self.files().get(name)
        if file is None:
            raise NotFound
        response = Response(file.body, content_type=file.content_type)
        response.headers.update(HEADERS)
        response.set_etag(file.etag)
        response.make_conditional(request)
        return response


def _read() -> dict[str, PageFile]:
    found = {}
    for file in files(__package__).joinpath("page").iterdir():
        _, dot, suffix = file.name.rpartition(".")
        # Editors leave other files there.
        if content_type := TYPES.get(dot + suffix):
            body = file.read_bytes()
            found[file.name] = PageFile(body, content_type, generate_etag(body))
    return found
