"""The library's routes, and how errors are answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from threading import get_ident
from typing import Any, NamedTuple

import flask
from flask import Blueprint, Flask, Request, Response, make_response, request
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
)

from ..callables import refuse_unrun
from ..config.secrets import redact
from ..exceptions import BatchTooLarge, EventTooLarge, InvalidEvent, PingError, Unavailable
from ..runtime.clock import monotonic
from ..runtime.failures import FailureLog
from ..text import plain, shorten
from ..types import Origin
from .access import CLIENT, CONTROL, PEER, READ, SEND, SENDER, Access
from .content import whole_body
from .control import VERBS
from .operator_routes import OperatorRoutes, refusals_logged
from .responses import (
    CONTENT_TYPE,
    NDJSON,
    RECEIVED,
    answer,
    batch_received,
    envelope,
    plain_answer,
)
from .views import Views

OK = "OK\n"
PING_HANGS = 5.0
"""Seconds after which a health check isn't called again until it returns."""


PUBLIC, ADMIN = "public", "admin"


class Route(NamedTuple):
    """A route of the library's own.

    right: what a request needs, None if nothing; listener: where it is if there are two, None for
    both.
    """

    method: str
    right: str | None
    listener: str | None


_READING = Route("GET", READ, ADMIN)
_PAGE_FILE = "page/<name>"
_PARTS = "config", "failed", "history", "warnings"
ROUTES = {
    "": Route("GET", None, ADMIN),
    _PAGE_FILE: Route("GET", None, ADMIN),
    "events": Route("POST", SEND, PUBLIC),
    "metrics": _READING,
    "status": _READING,
    **{f"status/{part}": _READING for part in _PARTS},
    **{f"control/{verb}": Route("POST", CONTROL, ADMIN) for verb in VERBS},
    "ping": Route("GET", None, None),
    "ready": Route("GET", None, None),
}
"""By their paths."""


def _one_of(name: str, values: Iterable[str]) -> str:
    """One rule for many routes: each rule takes time at the start."""
    return f"<any({', '.join(map(json.dumps, values))}):{name}>"


_PART, _CONTROL = f"status/{_one_of('part', _PARTS)}", f"control/{_one_of('verb', VERBS)}"
_RULES = {
    **{path: route for path, route in ROUTES.items() if "/" not in path},
    _PAGE_FILE: ROUTES[_PAGE_FILE],
    _PART: _READING,
    _CONTROL: Route("POST", CONTROL, ADMIN),
}
# The slash keeps them apart from the names of users' views.
ENDPOINTS = {f"daemonkit./{rule}": route for rule, route in _RULES.items()}
EVENTS_ENDPOINT = "daemonkit./events"
ALWAYS_OPEN = {None, *ENDPOINTS}
"""Endpoints that are answered in every phase; None is that of a request without a route."""


class _LibraryRoutes:
    """The library's own views."""

    def __init__(self, views: Views, failures: FailureLog) -> None:
        self._views = views
        self._failures = failures
        self._pings: dict[int, float] = {}
        """When the health checks that run began, by their threads."""

    def events(self) -> Response:
        if "CONTENT_LENGTH" not in request.environ:
            raise LengthRequired("A request to /events needs Content-Length or chunked framing")
        if not self._views.access().takes_http:
            raise NotFound("Events are not accepted over HTTP (intake)")
        origin = Origin(request.environ[CLIENT].shown, flask.g.get(SENDER))
        data = whole_body(self._views.max_request_size())
        intake = self._views.intake()
        if request.mimetype == NDJSON:
            batch = intake.decode_lines(data)
            intake.put_many(batch, "http", origin)
            return answer(200, batch_received(len(batch.events)))
        intake.put_many(intake.decode_one(data), "http", origin)
        return answer(200, RECEIVED)

    def ping(self) -> Response:
        now = monotonic()
        began = min(list(self._pings.values()), default=now)
        if now - began > PING_HANGS:
            # Each one more would keep a thread that the operator needs.
            text = f"The health check hangs: it was called {now - began:.0f} s ago\n"
            return plain_answer(text, 503)
        self._pings[get_ident()] = now
        try:
            return self._checked()
        finally:
            del self._pings[get_ident()]

    def _checked(self) -> Response:
        try:
            return self._ping_response(refuse_unrun(self._views.ping()))
        except PingError as error:
            return plain_answer(self._with_pause(shorten(redact(error.message))), error.code)
        # SystemExit too: a health check must never end a server thread.
        except BaseException:
            self._failures.log_raised("The health check failed")
            return plain_answer("The health check failed\n", 500)

    def _ping_response(self, result: Any) -> Response:
        if result is False:
            return plain_answer("The health check returned False\n", 503)
        if result is None or result is True:
            result = OK
        if isinstance(result, str):
            return plain_answer(self._with_pause(result), 200)
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
            return answer(200, envelope(text, True, **shown))
        outage = health.outage() if health.is_running else ""
        text = f"The daemon is {health.progress()}{outage and f', but {outage}'}"
        response = answer(503, envelope(text, False, **shown))
        response.headers["Retry-After"] = "1"
        return response


def add_routes(blueprint: Blueprint, views: Views, failures: FailureLog) -> None:
    """Add the library's routes; failures: logs what fails in them."""
    routes, operators = _LibraryRoutes(views, failures), OperatorRoutes(views, failures)
    named: dict[str, Callable[..., Response]] = {
        "": operators.page,
        _PAGE_FILE: operators.page_file,
        _PART: operators.status_part,
        _CONTROL: operators.control,
        "metrics": operators.metrics,
        "status": operators.status,
    }
    for rule, route in _RULES.items():
        # A redirect would say that control is here to those who may not know.
        more = {"merge_slashes": False} if route.right == CONTROL else {}
        view = named.get(rule) or getattr(routes, rule)
        blueprint.add_url_rule(f"/{rule}", f"/{rule}", view, methods=[route.method], **more)


def check_rights(access: Access, request: Request, failures: FailureLog) -> None:
    """Refuse a request if it may not do what it asks for; raises HTTPException.

    failures: logs that control is refused.
    """
    peer, route = request.environ[PEER], _route_of(request)
    # A user's own, or none, is public.
    listener = PUBLIC if route is None else route.listener
    if access.has_admin and listener == (PUBLIC if peer.is_admin else ADMIN):
        raise NotFound
    if route is not None and route.right is not None:
        with refusals_logged(failures, access) if route.right == CONTROL else nullcontext():
            sender = access.check(route.right, peer, request.headers)
        setattr(flask.g, SENDER, sender)


def _route_of(request: Request) -> Route | None:
    if request.endpoint is not None:
        return ENDPOINTS.get(request.endpoint)
    # The method is wrong, or there is none.
    path = request.path[1:]
    return ROUTES.get(_PAGE_FILE if path.startswith("page/") else path)


def add_error_handlers(app: Flask) -> None:
    """Answer the library's exceptions with the JSON envelope."""

    def refused(message: str, code: int, **headers: str) -> Response:
        response = answer(code, envelope(message, False))
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
    return answer(code, envelope(message, False))


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
