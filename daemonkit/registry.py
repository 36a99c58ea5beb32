"""What users register: decorators, bare or called, and their imperative twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from flask import Blueprint

from .callables import accepts, check_options, function_name, require_function
from .exceptions import RegistrationError
from .supervision.restart import check_timeout, is_seconds
from .supervision.slave import SlaveOptions, SlaveSpec, SlaveTarget
from .text import describe
from .types import EventHandler, Hook, PingCheck, StatusField

if TYPE_CHECKING:
    from typing_extensions import Unpack

S = TypeVar("S", bound=SlaveTarget)
H = TypeVar("H", bound=EventHandler)
F = TypeVar("F", bound=Callable[[], Any])
R = TypeVar("R", bound=Callable[..., Any])

STATUS_KEYS = frozenset(
    {
        "config",
        "events",
        "events_queue",
        "http",
        "juggler",
        "master_config",
        "name",
        "phase",
        "pid",
        "problems",
        "slaves",
        "started",
        "udp",
        "uptime",
        "waiting_for",
    }
)
"""Keys of `/status` that are the library's own."""


class HandlerOptions(TypedDict, total=False):
    """What can be said of the event handler; see `Registrars.on_event`."""

    threads: int
    batch: int | None
    linger: float
    timeout: float | None
    retries: int
    backoff: float


@dataclass(frozen=True)
class HandlerSpec:
    """The event handler as it was registered; see `Daemon.set_event_handler`."""

    function: EventHandler
    threads: int = 1
    batch: int | None = None
    linger: float = 0.0
    timeout: float | None = None
    retries: int = 0
    backoff: float = 1.0
    with_meta: bool = False


@dataclass
class Registry:
    """Everything registered with one daemon."""

    slaves: list[SlaveSpec] = field(default_factory=list)
    status_fields: dict[str, StatusField] = field(default_factory=dict)
    handler: HandlerSpec | None = None
    ping: PingCheck | None = None
    main: Hook | None = None
    start_hooks: list[Hook] = field(default_factory=list)
    stop_hooks: list[Hook] = field(default_factory=list)
    reload_hooks: list[Hook] = field(default_factory=list)
    endpoints: set[str] = field(default_factory=set)
    rules: set[tuple[str, str]] = field(default_factory=set)
    frozen: bool = False


class Registrars:
    """The registering half of `Daemon`.

    Each registrar raises RegistrationError at once for what isn't callable, for a second
    registration under one name, and after the daemon has started.
    """

    blueprint: Blueprint

    def __init__(self) -> None:
        self._registry = Registry()
        self.blueprint = Blueprint("daemonkit", "daemonkit")

    @overload
    def slave(self, target: S) -> S: ...
    @overload
    def slave(self, **options: Unpack[SlaveOptions]) -> Callable[[S], S]: ...
    def slave(self, target: Any = None, **options: Unpack[SlaveOptions]) -> Any:
        """Register a slave: a function, also `async def`, or a Slave subclass.

        name: the slave's and its thread's name, by default the function's or class's; every:
        seconds from one call's beginning to the next one's, None to call it once.

        restart: "on-failure" when it raises, "always" also when it returns, or "never"; backoff:
        the first wait before a restart, in seconds, or a pair of the first and the longest: waits
        double from one restart to the next, by default up to 60; max_restarts, within: restarts
        allowed within so many seconds before it gives up (as in Erlang/OTP's supervisors; None: no
        limit); critical: whether the daemon stops when it gives up.

        after: names of slaves that start before it, and stop after it; timeout: seconds without a
        heartbeat after which it is stalled, see `Slave.heartbeat`.
        """
        return _bare_or_called(target, lambda f: self.add_slave(f, **options))

    def add_slave(self, target: SlaveTarget, **options: Unpack[SlaveOptions]) -> None:
        """Register a slave; see `slave`."""
        self._check_open("a slave", "in a running daemon, use run_slave")
        self._append_slave(SlaveSpec.make(target, "slave", options))

    def _append_slave(self, spec: SlaveSpec) -> None:
        if any(spec.name == other.name for other in self._registry.slaves):
            raise RegistrationError(
                f"a slave named {spec.name!r} is registered already; choose another by name="
            )
        self._registry.slaves.append(spec)

    @overload
    def on_event(self, function: H) -> H: ...
    @overload
    def on_event(self, **options: Unpack[HandlerOptions]) -> Callable[[H], H]: ...
    def on_event(self, function: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register the event handler, called as `handle(event)` or `handle(event, meta)`.

        threads: how many threads call it (1); batch: hand over lists of up to so many events (and
        of their metas); linger: seconds to wait for a list to fill, counted from its first event;
        timeout: seconds after which a call that hasn't returned is called stalled, in the log and
        by the health check; retries: how often an event is handled again when the handler raises
        (0), then it is a dead letter; backoff: seconds until the first of these, doubled each time.
        """
        return _bare_or_called(function, lambda f: self.set_event_handler(f, **options))

    def set_event_handler(self, function: EventHandler, **options: Unpack[HandlerOptions]) -> None:
        """Register the event handler; see `on_event`."""
        self._check_open("an event handler")
        require_function(function, "on_event")
        with_meta = accepts(function, "on_event", ("event",), ("event", "meta")) == 2
        check_options(options, HandlerOptions.__annotations__, "on_event")
        spec = HandlerSpec(function, with_meta=with_meta, **options)
        _check_whole("threads", spec.threads)
        if spec.batch is not None:
            _check_whole("batch", spec.batch)
        elif spec.linger:
            raise RegistrationError("linger needs batch: single events are handed over at once")
        if not is_seconds(spec.linger):
            raise RegistrationError(
                f"linger must be a number of seconds >= 0, not {describe(spec.linger)}"
            )
        check_timeout("timeout", spec.timeout)
        _check_whole("retries", spec.retries, 0)
        if not is_seconds(spec.backoff):
            raise RegistrationError(
                f"backoff must be a number of seconds >= 0, not {describe(spec.backoff)}"
            )
        present = self._registry.handler
        _check_single("event handler", present.function if present else None)
        self._registry.handler = spec

    @overload
    def status_field(self, function: F) -> F: ...
    @overload
    def status_field(self, *, name: str | None = None) -> Callable[[F], F]: ...
    def status_field(self, function: Any = None, *, name: str | None = None) -> Any:
        """Register a function whose result `/status` shows.

        name: the key in `/status`, by default the function's name.
        """
        return _bare_or_called(function, lambda f: self.add_status_field(f, name=name))

    def add_status_field(self, function: StatusField, *, name: str | None = None) -> None:
        """Register a status field; see `status_field`."""
        self._check_open("a status field")
        require_function(function, "status_field")
        accepts(function, "status_field", ())
        key = function_name(function) if name is None else name
        if not isinstance(key, str) or not key:
            raise RegistrationError(f"a status field's name must be a string, not {describe(key)}")
        if key in STATUS_KEYS:
            raise RegistrationError(
                f"{key!r} is a status field of daemonkit's own; choose another by name="
            )
        if key in self._registry.status_fields:
            raise RegistrationError(
                f"a status field named {key!r} is registered already; choose another by name="
            )
        self._registry.status_fields[key] = function

    @overload
    def on_ping(self, function: F) -> F: ...
    @overload
    def on_ping(self) -> Callable[[F], F]: ...
    def on_ping(self, function: Any = None) -> Any:
        """Register the health check, in place of the default one.

        It returns the answer's text (None for "OK"), or raises PingError.
        """
        return _bare_or_called(function, self.set_ping_check)

    def set_ping_check(self, function: PingCheck) -> None:
        """Register the health check; see `on_ping`."""
        self._check_open("a health check")
        _check_hook(function, "on_ping")
        _check_single("health check", self._registry.ping)
        self._registry.ping = function

    @overload
    def main(self, function: F) -> F: ...
    @overload
    def main(self) -> Callable[[F], F]: ...
    def main(self, function: Any = None) -> Any:
        """Register what runs in the main thread until shutdown.

        When it returns early, the daemon goes on; when it raises, the daemon stops with exit
        status 1.
        """
        return _bare_or_called(function, self.set_main)

    def set_main(self, function: Hook) -> None:
        """Register what runs in the main thread; see `main`."""
        self._check_open("a main function")
        _check_hook(function, "main")
        _check_single("main function", self._registry.main)
        self._registry.main = function

    @overload
    def on_start(self, function: F) -> F: ...
    @overload
    def on_start(self) -> Callable[[F], F]: ...
    def on_start(self, function: Any = None) -> Any:
        """Register a function called, in order, before the event processor and slaves start.

        When it raises, the daemon does not start: exit status 3.
        """
        return _bare_or_called(function, self.add_start_hook)

    def add_start_hook(self, function: Hook) -> None:
        """Register a start hook; see `on_start`."""
        self._add_hook(self._registry.start_hooks, function, "on_start")

    @overload
    def on_stop(self, function: F) -> F: ...
    @overload
    def on_stop(self) -> Callable[[F], F]: ...
    def on_stop(self, function: Any = None) -> Any:
        """Register a function called, in reverse order, after the slaves have stopped."""
        return _bare_or_called(function, self.add_stop_hook)

    def add_stop_hook(self, function: Hook) -> None:
        """Register a stop hook; see `on_stop`."""
        self._add_hook(self._registry.stop_hooks, function, "on_stop")

    @overload
    def on_reload(self, function: F) -> F: ...
    @overload
    def on_reload(self) -> Callable[[F], F]: ...
    def on_reload(self, function: Any = None) -> Any:
        """Register a function called, in order, after SIGHUP has loaded the configuration anew."""
        return _bare_or_called(function, self.add_reload_hook)

    def add_reload_hook(self, function: Hook) -> None:
        """Register a reload hook; see `on_reload`."""
        self._add_hook(self._registry.reload_hooks, function, "on_reload")

    def route(self, rule: str, **options: Any) -> Callable[[R], R]:
        """Register a route on the Flask blueprint; takes what `flask.Blueprint.route` takes."""

        _check_rule(rule)

        def register(function: R) -> R:
            self.add_url_rule(rule, function, **options)
            return function

        return register

    def add_url_rule(self, rule: str, function: Callable[..., Any], **options: Any) -> None:
        """Register a route on the Flask blueprint; see `route`."""
        _check_rule(rule)
        self._check_open(f"the route {rule}")
        require_function(function, "route", may_be_async=True)
        endpoint = options.pop("endpoint", None) or function_name(function)
        if endpoint in self._registry.endpoints:
            raise RegistrationError(
                f"a route named {endpoint!r} is registered already; choose another by endpoint="
            )
        for method in options.get("methods") or ("GET",):
            if (rule, method) in self._registry.rules:
                raise RegistrationError(f"{method} {rule} is registered already")
            self._registry.rules.add((rule, method))
        self.blueprint.add_url_rule(rule, endpoint, function, **options)
        self._registry.endpoints.add(endpoint)

    def _add_hook(self, hooks: list[Hook], function: Hook, registrar: str) -> None:
        self._check_open(f"an {registrar} hook")
        _check_hook(function, registrar)
        if function in hooks:
            raise RegistrationError(
                f"{function_name(function)}() is an {registrar} hook already; register it once"
            )
        hooks.append(function)

    def _check_open(self, what: str, instead: str = "register it before start()") -> None:
        if self._registry.frozen:
            raise RegistrationError(
                f"{what} can't be registered once the daemon has started; {instead}"
            )


def _bare_or_called(function: Any, register: Callable[[Any], None]) -> Any:
    def registrar(target: Any) -> Any:
        register(target)
        return target

    return registrar if function is None else registrar(function)


def _check_rule(rule: Any) -> None:
    if not isinstance(rule, str) or not rule.startswith("/"):
        raise RegistrationError(f"route takes a rule such as '/hello', not {describe(rule)}")


def _check_hook(function: Any, registrar: str) -> None:
    require_function(function, registrar)
    accepts(function, registrar, ())


def _check_single(what: str, present: Callable[..., Any] | None) -> None:
    if present is not None:
        raise RegistrationError(
            f"the {what} is {function_name(present)}() already; a daemon has one, so call both "
            "from one function"
        )


def _check_whole(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RegistrationError(f"{name} must be an int >= {least}, not {describe(value)}")
