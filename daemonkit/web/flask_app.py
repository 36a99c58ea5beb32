"""The Flask app of a daemon, and whether anything in it could see an event."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from io import BytesIO
from types import FunctionType
from typing import IO, Any

import flask
from flask import Blueprint, Flask, Request, request, signals
from werkzeug.exceptions import HTTPException
from werkzeug.utils import cached_property

from ..exceptions import BatchTooLarge, QueueFull, Unavailable
from . import routes

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

    def __init__(self, blueprint: Blueprint, views: routes.Views) -> None:
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
        routes.add_error_handlers(self, views)
        handlers = self.error_handler_spec[None][None]
        errors = (Unavailable, QueueFull, BatchTooLarge)
        self._own_refusals = [(error, handlers.get(error)) for error in errors]
        self.url_build_error_handlers.append(self._build_url)
        self._own_attributes = frozenset(vars(self))

    def seal(self) -> None:
        """Add the library's routes, after the user's so that those win, and take no more."""
        with self._seal_lock:
            if not self.sealed:
                self.sealed = True
                routes.add_routes(self.daemon_blueprint, self._views)
                self.register_blueprint(self.daemon_blueprint)
                if self._events_route_is_ours():
                    self._own_events_view = self.view_functions.get(routes.EVENTS_ENDPOINT)
                self._is_patched, self._way = _flask_is_patched(), self._look_at_way()

    def open_or_close(self, why: str | None) -> None:
        """Answer users' routes, or refuse them with 503 and the reason: what the start hooks open
        is not there yet, or what the stop hooks close is there no more."""
        self.closed = why

    def fast_lane_blocker(self) -> str:
        """What of the user's could see a request to `/events` or change its answer; "" if nothing
        could."""
        own_view = self._own_events_view
        if own_view is None or self.view_functions.get(routes.EVENTS_ENDPOINT) is not own_view:
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
        return bool(endpoint == routes.EVENTS_ENDPOINT)

    def _build_url(self, error: Exception, endpoint: str, values: dict[str, Any]) -> str:
        """The URL of a route by the endpoint it was registered with, as without a blueprint."""
        if "." in endpoint:
            raise error
        return self.url_for(f"{self.daemon_blueprint.name}.{endpoint}", **values)

    def make_response(self, rv: Any) -> flask.Response:
        # Not a handler: every handler of the user's takes precedence, even one for Exception.
        if isinstance(rv, HTTPException):
            rv = routes.http_error(rv, self._views)
        return super().make_response(rv)

    def log_exception(self, exc_info: Any) -> None:
        self.logger.error("%s %s failed", request.method, request.path, exc_info=exc_info)

    def dispatch_request(self) -> Any:
        if self.closed is not None and request.endpoint not in routes.LIBRARY_ENDPOINTS:
            raise Unavailable(self.closed, retry_after=5)
        return super().dispatch_request()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self.sealed:
            self.seal()
        return super().__call__(environ, start_response)
