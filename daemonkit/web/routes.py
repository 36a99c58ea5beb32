"""The Flask side: the library's routes on the blueprint that users extend."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from types import FunctionType
from typing import IO, Any

import flask
from flask import Blueprint, Flask, Request, Response, make_response, request, signals
from werkzeug.exceptions import (
    HTTPException,
    InternalServerError,
    LengthRequired,
    MethodNotAllowed,
    NotFound,
)
from werkzeug.utils import cached_property

from ..callables import refuse_unrun
from ..events.codec import decode_lines, decode_one
from ..events.intake import Intake
from ..exceptions import BatchTooLarge, InvalidEvent, PingError, QueueFull, Unavailable
from ..monitoring.health import Health
from ..monitoring.status import jsonable
from ..system.sockets import format_address
from ..text import plain
from .responses import CONTENT_TYPE, NDJSON, RECEIVED, batch_received, envelope

OK = "OK\n"
EVENTS_ENDPOINT = "daemonkit._events"
LIBRARY_ENDPOINTS = {
    None,
    EVENTS_ENDPOINT,
    *(f"daemonkit.{name}" for name in ("_status", "_ping", "_ready")),
}


@dataclass(frozen=True)
class Views:
    """What the routes call: plain callables, so that nothing here knows the daemon."""

    intake: Callable[[], Intake]
    status: Callable[[], Any]
    ping: Callable[[], Any]
    health: Health
    redact: Callable[[str], str]
    logger: logging.Logger


# What replaces one of these could see requests; caches of Flask's own look the same.
_REPLACEABLE = frozenset(
    name
    for cls in Flask.__mro__
    for name, value in vars(cls).items()
    if not isinstance(value, cached_property)
)
_SIGNALS = (
    signals.appcontext_popped,
    signals.appcontext_pushed,
    signals.appcontext_tearing_down,
    signals.got_request_exception,
    signals.request_finished,
    signals.request_started,
    signals.request_tearing_down,
)
_LIMITS = ("MAX_CONTENT_LENGTH", "SERVER_NAME", "TRUSTED_HOSTS")
_FLASK = os.path.dirname(flask.__file__)
_ON_THE_WAY = ("__call__", "wsgi_app", "full_dispatch_request", "dispatch_request")


def _flask_is_patched() -> bool:
    """Whether something else has put its own functions into Flask's classes, to trace requests for
    instance; most that do have done so before this module is imported."""
    return Flask.request_class is not flask.Request or not all(
        _is_flask_s(getattr(value, "__func__", value))
        for cls in Flask.__mro__[:-1]
        for value in vars(cls).values()
    )


def _is_flask_s(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return value.__code__.co_filename.startswith(_FLASK)
    return isinstance(value, type) or not callable(value)


class WebRequest(Request):
    """A request whose files are kept in memory, within `max_request_size`, like all of its body."""

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        # Werkzeug's own goes to a temporary folder, which may be missing or full.
        return BytesIO()


class WebApp(Flask):
    """The Flask app of a daemon. Routes may be added to its blueprint until the first request."""

    request_class = WebRequest

    def __init__(self, blueprint: Blueprint, views: Views) -> None:
        folder = blueprint.root_path
        static = os.path.join(folder, "static")
        super().__init__(
            "daemonkit",
            root_path=folder,
            static_folder=static if os.path.isdir(static) else None,
        )
        self.daemon_blueprint = blueprint
        self.sealed = False
        self.closed: str | None = None
        self.logger = views.logger
        self._views = views
        self._seal_lock = threading.Lock()
        self._own_events_view: Callable[..., Any] | None = None
        # Before anything of the user's, whose handlers for the same errors then win.
        _add_error_handlers(self, views)
        handlers = self.error_handler_spec[None][None]
        errors = (Unavailable, QueueFull, BatchTooLarge)
        self._own_refusals = [(error, handlers.get(error)) for error in errors]
        self._own_attributes = frozenset(vars(self))

    def seal(self) -> None:
        """Add the library's routes, after the user's so that those win, and take no more."""
        with self._seal_lock:
            if not self.sealed:
                self.sealed = True
                _add_routes(self.daemon_blueprint, self._views)
                self.register_blueprint(self.daemon_blueprint)
                if self._events_route_is_ours():
                    self._own_events_view = self.view_functions.get(EVENTS_ENDPOINT)
                self._is_patched, self._way = _flask_is_patched(), self._look_at_way()

    def open_or_close(self, why: str | None) -> None:
        """Answer users' routes, or refuse them with 503 and the reason: what the start hooks open
        is not there yet, or what the stop hooks close is there no more."""
        self.closed = why

    def fast_lane_blocker(self) -> str:
        """What of the user's could see a request to `/events` or change its answer; "" if nothing
        could."""
        own_view = self._own_events_view
        if own_view is None or self.view_functions.get(EVENTS_ENDPOINT) is not own_view:
            return "a route of your own for /events"
        if self._is_patched or self._look_at_way() != self._way:
            return "a patch of Flask's classes"
        if replaced := _REPLACEABLE & (vars(self).keys() - self._own_attributes):
            return f"a replaced {min(replaced)}"
        if any(signal.receivers and signal.has_receivers_for(self) for signal in _SIGNALS):
            return "a receiver of Flask's signals"
        name = self.daemon_blueprint.name
        if self.teardown_appcontext_funcs or any(
            hooks.get(None) or hooks.get(name)
            for hooks in (
                self.before_request_funcs,
                self.after_request_funcs,
                self.teardown_request_funcs,
                self.url_value_preprocessors,
            )
        ):
            return "a function that Flask calls with each request"
        handlers = self.error_handler_spec[None][None]
        if (
            any(handlers.get(error) is not own for error, own in self._own_refusals)
            # Flask's own looking for handlers leaves empty entries.
            or any(self.error_handler_spec.get(name, {}).values())
        ):
            return "an error handler of your own"
        for name in _LIMITS:
            if self.config.get(name) is not None:
                return f"{name} in app.flask.config"
        return ""

    def _look_at_way(self) -> list[Any]:
        return [getattr(Flask, name) for name in _ON_THE_WAY]

    def _events_route_is_ours(self) -> bool:
        if self.url_map.host_matching or self.subdomain_matching:
            return False
        try:
            endpoint, _ = self.url_map.bind("localhost").match("/events", method="POST")
        except HTTPException:
            return False
        return bool(endpoint == EVENTS_ENDPOINT)

    def dispatch_request(self) -> Any:
        if self.closed is not None and request.endpoint not in LIBRARY_ENDPOINTS:
            raise Unavailable(self.closed, retry_after=5)
        return super().dispatch_request()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self.sealed:
            self.seal()
        return super().__call__(environ, start_response)


def _add_routes(blueprint: Blueprint, views: Views) -> None:
    def events() -> Response:
        if "CONTENT_LENGTH" not in request.environ:
            raise LengthRequired("A request to /events needs Content-Length or chunked framing")
        # Not `request.remote_port`: Flask has none, the server puts it here.
        peer = format_address(request.remote_addr or "", request.environ.get("REMOTE_PORT", "0"))
        data = _whole_body()
        if request.mimetype == NDJSON:
            decoded = decode_lines(data)
            views.intake().put_many(decoded, "http", peer)
            return _answer(200, batch_received(len(decoded.events)))
        views.intake().put_many(decode_one(data), "http", peer)
        return _answer(200, RECEIVED)

    def status() -> Response:
        return _answer(200, envelope(jsonable(views.status(), views.redact), True))

    def ping() -> Response:
        try:
            result = refuse_unrun(views.ping())
            if result is False:
                return _plain("The health check returned False\n", 503)
            if result is None or result is True:
                result = OK
            if isinstance(result, str):
                return _plain(views.redact(result), 200)
            if isinstance(result, tuple) and isinstance(result[0], str):
                result = (plain(result[0]), *result[1:])
            response = make_response(result)
            if not (response.is_streamed or response.direct_passthrough):
                response.set_data(views.redact(response.get_data(as_text=True)))
            return response
        except PingError as error:
            return _plain(views.redact(error.message), error.code)
        # SystemExit too: what a health check raises must never end a server thread.
        except BaseException:
            views.logger.exception("The health check failed")
            return _plain("The health check failed\n", 500)

    def ready() -> Response:
        health = views.health
        shown = {"phase": health.phase, "waiting_for": health.waiting_for()}
        if health.is_ready:
            return _answer(200, envelope("Ready", True, **shown))
        text = views.redact(f"The daemon is {health.progress()}")
        response = _answer(503, envelope(text, False, **shown))
        response.headers["Retry-After"] = "1"
        return response

    add = blueprint.add_url_rule
    add("/events", "_events", events, methods=["POST"])
    add("/status", "_status", status)
    add("/ping", "_ping", ping)
    add("/ready", "_ready", ready)


def _whole_body() -> bytes:
    """The request's body, also when a hook has read some of it, as a form for instance."""
    stream = request.environ["wsgi.input"]
    # A middleware may have put something else there, with no more than PEP 3333 asks for.
    may_seek = getattr(stream, "seekable", bool)
    if not getattr(request, "_cached_data", None) and may_seek():
        stream.seek(0)
        for name in ("stream", "_cached_data"):
            vars(request).pop(name, None)
    return request.get_data()


def _add_error_handlers(app: Flask, views: Views) -> None:
    def refused(message: str, code: int, **headers: str) -> Response:
        response = _answer(code, envelope(views.redact(message), False))
        response.headers.update(headers)
        return response

    def invalid(error: Exception) -> Response:
        return refused(f"Invalid JSON: {error}", 400)

    def unavailable(error: Exception) -> Response:
        assert isinstance(error, Unavailable)
        return refused(str(error), 503, **{"Retry-After": str(error.retry_after)})

    def too_large(error: Exception) -> Response:
        return refused(str(error), 413)

    def http_error(error: Exception) -> Any:
        assert isinstance(error, HTTPException)
        # An answer of the user's own making, or a redirection, is left as it is.
        if error.response is not None or (error.code or 0) < 400:
            return error
        response = Response.force_type(error.get_response())
        response.data = envelope(views.redact(_message(error)), False)
        response.content_type = CONTENT_TYPE
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response

    def unforeseen(error: Exception) -> Response:
        views.logger.error("%s %s failed", request.method, request.path, exc_info=error)
        return refused("Internal Server Error", 500)

    app.errorhandler(InvalidEvent)(invalid)
    app.errorhandler(Unavailable)(unavailable)
    app.errorhandler(BatchTooLarge)(too_large)
    app.errorhandler(HTTPException)(http_error)
    app.errorhandler(Exception)(unforeseen)


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
    return Response(plain(text), code, mimetype="text/plain")
