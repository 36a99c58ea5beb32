"""The library's routes, and how errors are answered."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flask
from flask import Blueprint, Flask, Request, Response, make_response, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    InternalServerError,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
)

from ..callables import refuse_unrun
from ..config.secrets import redact
from ..events.failed import LONGEST_SHOWN, FailedEvents, Selection
from ..events.intake import Intake
from ..exceptions import BatchTooLarge, EventTooLarge, InvalidEvent, PingError, Unavailable
from ..gauges import MISSING
from ..monitoring.health import Health
from ..runtime.failures import FailureLog
from ..text import plain, shorten
from ..types import Origin
from .access import CLIENT, CONTROL, PEER, READ, SEND, SENDER, Access
from .content import decoded
from .control import VERBS, Answer, parse
from .responses import CONTENT_TYPE, NDJSON, RECEIVED, batch_received, envelope

OK = "OK\n"
MOST_FAILED = 200
"""Failed events in an answer."""


_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")


class Route(NamedTuple):
    """A route of the library's own. right: what a request needs, None if nothing."""

    method: str
    right: str | None


ROUTES = {
    "events": Route("POST", SEND),
    "metrics": Route("GET", READ),
    "status": Route("GET", READ),
    "status/failed": Route("GET", READ),
    "status/history": Route("GET", READ),
    **{f"control/{verb}": Route("POST", CONTROL) for verb in VERBS},
    "ping": Route("GET", None),
    "ready": Route("GET", None),
}
"""By their paths, which are also the names of their views."""
# The slash keeps them apart from the names of users' views.
ENDPOINTS = {f"daemonkit./{path}": route for path, route in ROUTES.items()}
EVENTS_ENDPOINT = "daemonkit./events"
ALWAYS_OPEN = {None, *ENDPOINTS}
"""Endpoints that are answered in every phase; None is that of a request without a route."""


class Views(NamedTuple):
    """What the routes call: plain callables, so that nothing here knows the daemon."""

    access: Callable[[], Access]
    control: Callable[[str, Mapping[str, Any], str], Answer]
    failed_events: Callable[[], FailedEvents]
    history: Callable[[float], Any]
    metrics: Callable[[str], tuple[bytes, str]]
    pause_line: Callable[[], str]
    intake: Callable[[], Intake]
    max_request_size: Callable[[], int]
    status: Callable[[], Any]
    ping: Callable[[], Any]
    health: Health
    logger: logging.Logger


def _whole(query: Mapping[str, str], name: str, default: int | None) -> int | None:
    """A number in a query."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadRequest(f"{name} must be a whole number")
    return int(text)


class _LibraryRoutes:
    """The library's own views."""

    def __init__(self, views: Views, failures: FailureLog) -> None:
        self._views = views
        self._failures = failures

    def events(self) -> Response:
        if "CONTENT_LENGTH" not in request.environ:
            raise LengthRequired("A request to /events needs Content-Length or chunked framing")
        if not self._views.access().takes_http:
            raise NotFound("Events are not accepted over HTTP (intake)")
        origin = Origin(request.environ[CLIENT].shown, flask.g.get(SENDER))
        data = self._body()
        intake = self._views.intake()
        if request.mimetype == NDJSON:
            batch = intake.decode_lines(data)
            intake.put_many(batch, "http", origin)
            return _answer(200, batch_received(len(batch.events)))
        intake.put_many(intake.decode_one(data), "http", origin)
        return _answer(200, RECEIVED)

    def _body(self) -> bytes:
        coding = request.headers.get("Content-Encoding", "")
        return decoded(_whole_body(), coding, self._views.max_request_size())

    def status(self) -> Response:
        status = self._views.status()
        if isinstance(status, dict):
            rights = self._views.access().rights(request.environ[PEER], request.headers)
            status = {**status, "rights": rights}
        return _answer(200, envelope(status, True))

    def status_history(self) -> Response:
        """The last fifteen minutes, or what came after `since`."""
        text = request.args.get("since", "0")
        if not _SECONDS.fullmatch(text):
            raise BadRequest("since must be in Unix seconds")
        return _answer(200, envelope(self._views.history(float(text)), True))

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
        return _answer(200, envelope(shown, True))

    def metrics(self) -> Response:
        """The metrics, for Prometheus."""
        try:
            body, content_type = self._views.metrics(request.headers.get("Accept", ""))
        except ImportError:
            raise NotFound(f"{MISSING[:1].upper()}{MISSING[1:]}") from None
        return Response(body, 200, content_type=content_type)

    def control(self, verb: str) -> Response:
        """What an operator asks for."""
        asked = parse(verb, self._body())
        by = flask.g.get(SENDER) or request.environ[CLIENT].shown
        code, message, more = answer = self._views.control(verb, asked, by)
        return _answer(code, envelope(message, answer.is_ok, **more))

    def ping(self) -> Response:
        try:
            return self._ping_response(refuse_unrun(self._views.ping()))
        except PingError as error:
            return _plain(shorten(redact(error.message)), error.code)
        # SystemExit too: a health check must never end a server thread.
        except BaseException:
            self._failures.log_raised("The health check failed")
            return _plain("The health check failed\n", 500)

    def _ping_response(self, result: Any) -> Response:
        if result is False:
            return _plain("The health check returned False\n", 503)
        if result is None or result is True:
            result = OK
        if isinstance(result, str):
            return _plain(self._with_pause(result), 200)
        if isinstance(result, tuple) and isinstance(result[0], str):
            result = (plain(result[0]), *result[1:])
        response = make_response(result)
        if not (response.is_streamed or response.direct_passthrough):
            response.set_data(redact(response.get_data(as_text=True)))
        return response

    def _with_pause(self, text: str) -> str:
        paused = self._views.pause_line()
        if not paused:
            return text
        return text + "\n" * (not text.endswith("\n")) + f"Paused: {paused}\n"

    def ready(self) -> Response:
        health = self._views.health
        shown = {"phase": health.phase, "waiting_for": health.waiting_for()}
        if health.is_ready:
            paused = self._views.pause_line()
            text = f"Ready; paused: {paused}" if paused else "Ready"
            return _answer(200, envelope(text, True, **shown))
        text = f"The daemon is {health.progress()}"
        response = _answer(503, envelope(text, False, **shown))
        response.headers["Retry-After"] = "1"
        return response


def add_routes(blueprint: Blueprint, views: Views, failures: FailureLog) -> None:
    """Add the library's routes; failures: logs what fails in them."""
    routes = _LibraryRoutes(views, failures)
    for path, route in ROUTES.items():
        view = getattr(routes, path.replace("/", "_"), None)
        if route.right == CONTROL:
            view = partial(routes.control, path.partition("/")[2])
        # A redirect would say that control is here to those who may not know.
        more = {"merge_slashes": False} if route.right == CONTROL else {}
        blueprint.add_url_rule(f"/{path}", f"/{path}", view, methods=[route.method], **more)


def check_rights(access: Access, request: Request) -> None:
    """Refuse a request if it may not do what it asks for; raises HTTPException."""
    endpoint, peer = request.endpoint, request.environ[PEER]
    # There is no endpoint if the method is wrong.
    route = ROUTES.get(request.path[1:]) if endpoint is None else ENDPOINTS.get(endpoint)
    # Everyone's probes are on both listeners.
    is_for_all = route is not None and route.right is None
    is_for_admin = route is not None and route.right in (READ, CONTROL)
    if access.has_admin and not is_for_all and peer.is_admin is not is_for_admin:
        raise NotFound
    if route is not None and route.right is not None:
        sender = access.check(route.right, peer, request.headers)
        setattr(flask.g, SENDER, sender)


def _whole_body() -> bytes:
    """The request's body, even if a hook has read some of it, for example as a form."""
    stream = request.environ["wsgi.input"]
    # Middleware may have replaced it with a stream that has only what PEP 3333 requires.
    may_seek = getattr(stream, "seekable", bool)
    if not getattr(request, "_cached_data", None) and may_seek():
        stream.seek(0)
        for name in ("stream", "_cached_data"):
            vars(request).pop(name, None)
    return request.get_data()


def add_error_handlers(app: Flask) -> None:
    """Answer the library's exceptions with the JSON envelope."""

    def refused(message: str, code: int, **headers: str) -> Response:
        response = _answer(code, envelope(message, False))
        response.headers.update(headers)
        return response

    def invalid(error: Exception) -> Response:
        return refused(f"Invalid JSON: {error}", 400)

    def unavailable(error: Exception) -> Response:
        assert isinstance(error, Unavailable)
        return refused(str(error), 503, **{"Retry-After": str(error.retry_after)})

    def too_large(error: Exception) -> Response:
        return refused(str(error), 413)

    app.errorhandler(InvalidEvent)(invalid)
    app.errorhandler(Unavailable)(unavailable)
    app.errorhandler(BatchTooLarge)(too_large)
    app.errorhandler(EventTooLarge)(too_large)


def http_error(error: HTTPException) -> Any:
    """Answer an HTTP error with the JSON envelope."""
    # The user's own responses and redirects are left alone.
    if error.response is not None or (error.code or 0) < 400:
        return error
    response = Response.force_type(error.get_response())
    response.data = envelope(_message(error), False)
    response.content_type = CONTENT_TYPE
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
    return response


def refusal(code: int, message: str) -> Response:
    """An answer that is given outside of Flask."""
    return _answer(code, envelope(message, False))


def _message(error: HTTPException) -> str:
    if (
        isinstance(error, InternalServerError)
        and error.description == InternalServerError.description
    ):
        return error.name
    if isinstance(error, NotFound) and error.description == NotFound.description:
        return f"Not found: {request.path}"
    if isinstance(error, MethodNotAllowed) and error.description == MethodNotAllowed.description:
        return f"Method {request.method} is not allowed for {request.path}"
    return error.description or error.name


def _answer(code: int, body: bytes) -> Response:
    return Response(body, code, content_type=CONTENT_TYPE)


def _plain(text: str, code: int) -> Response:
    return Response(redact(plain(text)), code, mimetype="text/plain")
