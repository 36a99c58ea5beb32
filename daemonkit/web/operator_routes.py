"""The routes for operators: the status and its parts, the page, metrics, and control."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import flask
from flask import Response, request
from werkzeug.exceptions import BadRequest, HTTPException, NotFound

from ..events.failed import LONGEST_SHOWN, Selection
from ..exceptions import InvalidEvent
from ..gauges import MISSING
from ..runtime.failures import FailureLog
from ..text import shorten
from .access import CLIENT, PEER, READ, SENDER, Access
from .content import whole_body
from .control import parse
from .responses import answer, envelope
from .views import Views

if TYPE_CHECKING:
    from .page_files import PageFiles

MOST_FAILED = 200
"""Failed events in an answer."""
LONGEST_REFUSAL = 300
"""Characters of a refused request that are logged."""
HTML = "text/html"
_SECONDS = r"[0-9]{1,12}(\.[0-9]{1,9})?"


class OperatorRoutes:
    """Their views."""

    def __init__(self, views: Views, failures: FailureLog) -> None:
        self._views = views
        self._failures = failures

    @cached_property
    def _files(self) -> PageFiles:
        from .page_files import PageFiles  # noqa: PLC0415

        return PageFiles()

    # The page

    def page(self) -> Response:
        """The page for browsers; it is empty, and asks for everything else by itself."""
        if not self._views.page_is_on():
            raise NotFound
        if HTML not in request.headers.get("Accept", "").lower():
            raise NotFound(f"Not found: / (the page is for browsers, which accept {HTML})")
        response = self._files.response()
        response.vary.add("Accept")
        return response

    def page_file(self, name: str) -> Response:
        """A file of the page."""
        if not self._views.page_is_on():
            raise NotFound
        return self._files.response(name)

    # What it shows

    def status(self) -> Response:
        status = self._views.status()
        if isinstance(status, dict):
            rights = self._views.access().rights(request.environ[PEER], request.headers)
            status = {**status, "rights": rights}
        return answer(200, envelope(status, True))

    def status_history(self) -> Response:
        """The last fifteen minutes, or what came after `since`."""
        text = request.args.get("since", "0")
        if not re.fullmatch(_SECONDS, text):
            raise BadRequest("since must be in Unix seconds")
        return answer(200, envelope(self._views.history(float(text)), True))

    def status_part(self, part: str) -> Response:
        """One of the views below."""
        view: Callable[[], Response] = getattr(self, f"status_{part}")
        return view()

    def status_warnings(self) -> Response:
        """The last warnings and errors, the oldest first."""
        is_whole = READ in self._views.access().guarded
        return answer(200, envelope(self._views.warnings(is_whole), True))

    def status_config(self) -> Response:
        """The configuration, and where each value comes from."""
        return answer(200, envelope(self._views.options(), True))

    def status_failed(self) -> Response:
        """Failed events, the newest first; of their contents only what `/status` shows, too."""
        access, query = self._views.access(), request.args
        state: Any = query.get("state", "dead")
        if state not in ("dead", "retrying"):
            raise BadRequest("state must be dead or retrying")
        selection = Selection(None, state, query.get("error", ""))
        before = _whole(query, "before", None)
        limit = 50 if (given := _whole(query, "limit", None)) is None else given
        if not 1 <= limit <= MOST_FAILED:
            raise BadRequest(f"limit must be in 1..{MOST_FAILED}")
        is_whole = READ in access.guarded
        found, count = self._views.failed_events().page(
            selection, before, limit + 1, whole=is_whole
        )
        events = [event.shown(whole=is_whole, limit=LONGEST_SHOWN) for event in found[:limit]]
        shown = {"events": events, "count": count, "more": len(found) > limit}
        return answer(200, envelope(shown, True))

    def metrics(self) -> Response:
        """The metrics, for Prometheus."""
        try:
            body, content_type = self._views.metrics(request.headers.get("Accept", ""))
        except ImportError:
            raise NotFound(f"{MISSING[:1].upper()}{MISSING[1:]}") from None
        return Response(body, 200, content_type=content_type)

    def control(self, verb: str) -> Response:
        """What an operator asks for."""
        with refusals_logged(self._failures, self._views.access()):
            asked = parse(verb, whole_body(self._views.max_request_size()))
        by = flask.g.get(SENDER) or request.environ[CLIENT].shown
        code, message, more = self._views.control(verb, asked, by)
        return answer(code, envelope(message, code == 200, **more))


@contextmanager
def refusals_logged(failures: FailureLog, access: Access) -> Iterator[None]:
    """Log that a request for control is refused, and whose it is."""
    try:
        yield
    except (HTTPException, InvalidEvent) as error:
        _, token = access.sender(request.headers.get("Authorization", ""))
        by = token or request.environ[CLIENT].shown
        why = f"Invalid JSON: {error}" if isinstance(error, InvalidEvent) else error
        what = shorten(f"{request.method} {request.path}, by {by}: {why}", LONGEST_REFUSAL)
        # By anyone without a token, there may be any number.
        kind = f"{type(error).__name__} {token or ''}"
        failures.report(logging.WARNING, "Refused a request for control", what, kind)
        raise


def _whole(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A number in a query."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadRequest(f"{name} must be a whole number")
    return int(text)
