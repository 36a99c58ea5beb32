"""Routes: what users add to the Flask blueprint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flask import Blueprint
from werkzeug.routing import Rule

from .callables import function_name, require_function
from .exceptions import RegistrationError
from .hooks import Freezable
from .text import describe

R = TypeVar("R", bound=Callable[..., Any])

PACKAGE = __name__.partition(".")[0]


class RouteRegistrars(Freezable):
    """Registers routes, as `flask.Flask` does, on the blueprint of the daemon."""

    blueprint: Blueprint

    def __init__(self) -> None:
        super().__init__()
        # Templates and static files are in the folder of the user's module, as with Flask.
        self.blueprint = Blueprint(PACKAGE, PACKAGE, root_path=str(_folder_of_user(type(self))))
        self._endpoints: dict[str, Callable[..., Any]] = {}
        self._rules: set[tuple[Any, ...]] = set()

    def route(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route; takes what `flask.Flask.route` takes."""
        _check_rule(rule)

        def register(function: R) -> R:
            self.add_url_rule(rule, view_func=function, **options)
            return function

        return register

    def get(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route for GET; see `route`."""
        return self._route_for("GET", rule, options)

    def post(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route for POST; see `route`."""
        return self._route_for("POST", rule, options)

    def put(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route for PUT; see `route`."""
        return self._route_for("PUT", rule, options)

    def patch(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route for PATCH; see `route`."""
        return self._route_for("PATCH", rule, options)

    def delete(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route for DELETE; see `route`."""
        return self._route_for("DELETE", rule, options)

    def _route_for(self, method: str, rule: str, options: dict[str, Any]) -> Callable[[R], R]:
        if "methods" in options:
            raise RegistrationError(f"{method.lower()} takes no methods; use route for several")
        return self.route(rule, methods=[method], **options)

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a route; takes what `flask.Flask.add_url_rule` takes, and needs `view_func`."""
        _check_rule(rule)
        self._check_open(f"the route {rule}")
        if view_func is None:
            raise RegistrationError(
                f"the route {rule} takes a function as view_func; "
                "to attach it later, use app.flask.add_url_rule"
            )
        require_function(view_func, "route", may_be_async=True)
        name = endpoint or function_name(view_func)
        if self._endpoints.get(name, view_func) != view_func:
            raise RegistrationError(
                f"a route named {name!r} is already registered; choose another by endpoint="
            )
        methods = options.get("methods") or getattr(view_func, "methods", None) or ("GET",)
        # Flask gets the options only at the start; an unknown one raises here.
        made = Rule(rule, **{**options, "methods": methods})
        rules = {(method.upper(), rule, made.subdomain, made.host) for method in methods}
        for method, *_ in sorted(rules & self._rules):
            raise RegistrationError(f"{method} {rule} is already registered")
        self.blueprint.add_url_rule(rule, name, view_func, provide_automatic_options, **options)
        self._endpoints[name] = view_func
        self._rules |= rules

    def before_request(self, function: R) -> R:
        """Register a function called before each request; see `flask.Flask.before_request`."""
        self._check_request_hook(function, "before_request")
        return self.blueprint.before_app_request(function)

    def after_request(self, function: R) -> R:
        """Register a function called with each response; see `flask.Flask.after_request`."""
        self._check_request_hook(function, "after_request")
        return self.blueprint.after_app_request(function)

    def errorhandler(self, code_or_exception: type[Exception] | int) -> Callable[[R], R]:
        """Register a handler of errors in requests; see `flask.Flask.errorhandler`."""

        def register(function: R) -> R:
            self._check_request_hook(function, "errorhandler")
            return self.blueprint.app_errorhandler(code_or_exception)(function)

        return register

    def _check_request_hook(self, function: Any, registrar: str) -> None:
        self._check_open(registrar)
        require_function(function, registrar, may_be_async=True)


def _check_rule(rule: Any) -> None:
    if not isinstance(rule, str) or not rule.startswith("/"):
        raise RegistrationError(f"route takes a rule such as '/hello', not {describe(rule)}")


def _folder_of_user(daemon_class: type) -> Path:
    """The folder of the module that subclasses Daemon, or else of the one that creates it."""
    file = getattr(sys.modules.get(daemon_class.__module__), "__file__", None)
    if _is_ours(daemon_class.__module__):
        frame: Any = sys._getframe(1)
        while frame is not None and _is_ours(frame.f_globals.get("__name__", "")):
            frame = frame.f_back
        file = None if frame is None else frame.f_globals.get("__file__")
    # None in an interactive interpreter.
    return Path.cwd() if file is None else Path(file).resolve().parent


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == PACKAGE
