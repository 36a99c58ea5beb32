"""The Flask app of a daemon, and whether anything in it could see an event."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from functools import cache, partial
from io import BytesIO
from types import FunctionType
from typing import IO, Any

import flask
from flask import Blueprint, Flask, Request, request, signals
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule
from werkzeug.utils import cached_property

from ..exceptions import BatchTooLarge, EventTooLarge, QueueFull, Unavailable
from ..runtime.failures import FailureLog
from . import routes
from .views import Views

# An instance attribute that replaces one of these could see requests. Flask stores its own cached
# properties as instance attributes, too.
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
_FLASK_FOLDER = os.path.dirname(flask.__file__)
_DISPATCH_METHODS = ("__call__", "wsgi_app", "full_dispatch_request", "dispatch_request")


def _flask_is_patched() -> bool:
    """Whether another library, for tracing for example, has replaced functions of Flask's classes;
    most of those do so before this module is imported."""
    return Flask.request_class is not flask.Request or not all(
        _is_from_flask(getattr(value, "__func__", value))
        for cls in Flask.__mro__[:-1]
        for value in vars(cls).values()
    )


def _is_from_flask(value: Any) -> bool:
    if isinstance(value, FunctionType):
        return value.__code__.co_filename.startswith(_FLASK_FOLDER)
    return isinstance(value, type) or not callable(value)


def _dispatch_methods() -> list[Any]:
    return [getattr(Flask, name) for name in _DISPATCH_METHODS]


class WebRequest(Request):
    """A request whose files are kept in memory, within `max_request_size`, like all of its body."""

    def _get_file_stream(self, *_: Any, **__: Any) -> IO[bytes]:
        # Werkzeug's default is a file in the temporary folder, which may be missing or full.
        return BytesIO()


class WebRule(Rule):
    """A rule whose functions that build URLs are made when one is built: they take most of the time
    in which a rule is made."""

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        make = cache(partial(super()._compile_builder, append_unknown))
        return lambda rule, **values: make()(rule, **values)


class WebApp(Flask):
    """The Flask app of a daemon. Routes may be added to its blueprint until the first request."""

    request_class = WebRequest
    url_rule_class = WebRule

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
        self.failures = FailureLog(views.logger)
        self._views = views
        self._seal_lock = threading.Lock()
        self._own_events_view: Callable[..., Any] | None = None
        # Before the user's handlers, so that theirs take precedence.
        routes.add_error_handlers(self)
        handlers = self.error_handler_spec[None][None]
        errors = (Unavailable, QueueFull, BatchTooLarge, EventTooLarge)
        self._own_refusals = [(error, handlers.get(error)) for error in errors]
        self.url_build_error_handlers.append(self._build_url)
        self._own_attributes = frozenset(vars(self))

    def seal(self) -> None:
        """Add the library's routes, after the user's so that those take precedence, and accept no
        more."""
        with self._seal_lock:
            if not self.sealed:
                self.sealed = True
                routes.add_routes(self.daemon_blueprint, self._views, self.failures)
                self.register_blueprint(self.daemon_blueprint)
                if self._events_route_is_ours():
                    self._own_events_view = self.view_functions.get(routes.EVENTS_ENDPOINT)
                self._is_patched = _flask_is_patched()
                self._dispatch = _dispatch_methods()

    def open_or_close(self, why: str | None) -> None:
        """Answer the user's routes, or refuse them with 503 and the reason: they may use what only
        exists between the start hooks and the stop hooks."""
        self.closed = why

    def fast_lane_blocker(self) -> str:
        """The user's code that could see a request to `/events` or change the answer, "" if there
        is none."""
        own_view = self._own_events_view
        if own_view is None or self.view_functions.get(routes.EVENTS_ENDPOINT) is not own_view:
            return "a route of your own for /events"
        if self._is_patched or _dispatch_methods() != self._dispatch:
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
            # Flask's lookup of handlers leaves empty entries.
            or any(self.error_handler_spec.get(name, {}).values())
        ):
            return "an error handler of your own"
        for name in _LIMITS:
            if self.config.get(name) is not None:
                return f"{name} in app.flask.config"
        return ""

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
            rv = routes.http_error(rv)
        return super().make_response(rv)

    def log_exception(self, exc_info: Any) -> None:
        # The rule, as there are any number of paths.
        rule, path = str(request.url_rule or request.path), request.path
        about = "" if rule == path else f" ({path})"
        self.failures.log(exc_info[1], f"{request.method} {rule} failed", about)

    def dispatch_request(self) -> Any:
        if self.closed is not None and request.endpoint not in routes.ALWAYS_OPEN:
            raise Unavailable(self.closed, retry_after=5)
        return super().dispatch_request()

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        if not self.sealed:
            self.seal()
        refused = self._views.access().admit(environ)
        if refused is not None:
            return routes.refusal(403, refused)(environ, start_response)
        if environ.get("PATH_INFO") == "*":
            # OPTIONS, about the server as a whole (RFC 9110 section 9.3.7).
            return flask.Response()(environ, start_response)
        return super().__call__(environ, start_response)

    def preprocess_request(self) -> Any:
        # Before the user's functions, which must not see what is refused.
        # Each look-up by the proxy costs a microsecond.
        current = request._get_current_object()  # type: ignore[attr-defined]
        routes.check_rights(self._views.access(), current, self.failures)
        return super().preprocess_request()
