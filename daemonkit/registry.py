"""What users register: decorators, bare or called, and their imperative twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict, TypeVar, overload

from .callables import accepts, check_options, function_name, require_function
from .events.entry import NO_RETRIES, RetryPolicy
from .exceptions import RegistrationError
from .gauges import GaugeRegistrars
from .hooks import HookRegistrars, bare_or_called, check_function
from .monitoring.status import STATUS_KEYS
from .routing import RouteRegistrars
from .supervision.restart import check_backoff, check_timeout, is_seconds
from .supervision.spec import SlaveOptions, SlaveSpec, SlaveTarget
from .text import describe
from .types import EventHandler, Hook, PingCheck, StatusField

if TYPE_CHECKING:
    from typing_extensions import Unpack

S = TypeVar("S", bound=SlaveTarget)
H = TypeVar("H", bound=EventHandler)
F = TypeVar("F", bound=Callable[[], Any])


class HandlerOptions(TypedDict, total=False):
    """Options of the event handler; see `Registrars.on_event`."""

    threads: int
    batch: int | None
    linger: float
    timeout: float | None
    retries: int
    backoff: float | tuple[float, float]


class HandlerSpec(NamedTuple):
    """The event handler as it was registered; see `Daemon.add_event_handler`."""

    function: EventHandler
    threads: int = 1
    batch: int | None = None
    linger: float = 0.0
    timeout: float | None = None
    retry: RetryPolicy = NO_RETRIES
    with_meta: bool = False

    def overridden_by(self, method: Callable[..., Any]) -> HandlerSpec:
        """The same with an override of `process_event`; raises RegistrationError when that can't
        pass on the second parameter of the registered function."""
        with_meta = accepts(method, "process_event", ("event",), ("event", "meta")) == 2
        if self.with_meta and not with_meta:
            raise RegistrationError(
                f"the event handler takes meta, but {method.__qualname__} doesn't: add a second "
                "parameter and pass it on"
            )
        return self._replace(function=method, with_meta=with_meta)


@dataclass(eq=False, repr=False)
class Registry:
    """Everything registered with one daemon."""

    slaves: list[SlaveSpec] = field(default_factory=list)
    status_fields: dict[str, StatusField] = field(default_factory=dict)
    handler: HandlerSpec | None = None
    ping: PingCheck | None = None
    main: Hook | None = None


class Registrars(HookRegistrars, RouteRegistrars, GaugeRegistrars):
    """The registering half of `Daemon`.

    Each registrar raises RegistrationError at once for what isn't callable, for a second
    registration under one name, and after the daemon has started.
    """

    def __init__(self) -> None:
        super().__init__()
        self._registry = Registry()

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

        after: names of slaves that start before it, and stop after it; bound: whether it also is
        stopped when one of them ends, and started again after it; group: the name of a group whose
        members are restarted together when one of them fails, with one restart counter (these are
        rest_for_one and one_for_all in Erlang/OTP).

        timeout: seconds without a heartbeat after which it is stalled, see `Slave.heartbeat`;
        stop_timeout: seconds that it has for stopping, by default as long as the daemon has;
        ends_daemon: whether the daemon stops, with exit status 0, when it is done.
        """
        return bare_or_called(target, lambda f: self.add_slave(f, **options))

    def add_slave(self, target: SlaveTarget, **options: Unpack[SlaveOptions]) -> None:
        """Register a slave; see `slave`."""
        self._check_open("a slave", "in a running daemon, use run_slave")
        self._append_slave(SlaveSpec.make(target, "slave", options))

    def _append_slave(self, spec: SlaveSpec) -> None:
        if any(spec.name == other.name for other in self._registry.slaves):
            raise RegistrationError(
                f"a slave named {spec.name!r} is already registered; choose another by name="
            )
        self._registry.slaves.append(spec)

    @overload
    def on_event(self, function: H) -> H: ...
    @overload
    def on_event(self, **options: Unpack[HandlerOptions]) -> Callable[[H], H]: ...
    def on_event(self, function: Any = None, **options: Unpack[HandlerOptions]) -> Any:
        """Register the event handler, called as `handle(event)` or `handle(event, meta)`.

        threads: how many threads call it (1); batch: pass lists of up to this many events (and of
        their metas); linger: seconds to wait for a list to fill, counted from its first event;
        timeout: seconds after which a call that hasn't returned counts as stalled, in the log and
        in the health check; retries: how often an event is retried when the handler raises (0),
        before it is a dead letter; backoff: seconds until the first retry, doubled each time up to
        an hour, or a pair of the first and the longest wait.
        """
        return bare_or_called(function, lambda f: self.add_event_handler(f, **options))

    def add_event_handler(self, function: EventHandler, **options: Unpack[HandlerOptions]) -> None:
        """Register the event handler; see `on_event`."""
        self._check_open("an event handler")
        require_function(function, "on_event")
        with_meta = accepts(function, "on_event", ("event",), ("event", "meta")) == 2
        check_options(options, HandlerOptions.__annotations__, "on_event")
        given: dict[str, Any] = dict(options)
        retries, backoff = given.pop("retries", 0), given.pop("backoff", RetryPolicy().first)
        _check_whole("retries", retries, 0)
        retry = RetryPolicy(retries, *check_backoff("backoff", backoff, RetryPolicy().longest))
        spec = HandlerSpec(function, with_meta=with_meta, retry=retry, **given)
        _check_whole("threads", spec.threads)
        if spec.batch is not None:
            _check_whole("batch", spec.batch)
        elif spec.linger:
            raise RegistrationError("linger needs batch: single events are passed on at once")
        if not is_seconds(spec.linger):
            raise RegistrationError(
                f"linger must be a number of seconds >= 0, not {describe(spec.linger)}"
            )
        check_timeout("timeout", spec.timeout)
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
        return bare_or_called(function, lambda f: self.add_status_field(f, name=name))

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
                f"{key!r} is one of daemonkit's own status fields; choose another by name="
            )
        if key in self._registry.status_fields:
            raise RegistrationError(
                f"a status field named {key!r} is already registered; choose another by name="
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
        return bare_or_called(function, self.add_ping_check)

    def add_ping_check(self, function: PingCheck) -> None:
        """Register the health check; see `on_ping`."""
        self._check_open("a health check")
        check_function(function, "on_ping")
        _check_single("health check", self._registry.ping)
        self._registry.ping = function

    @overload
    def main(self, function: F) -> F: ...
    @overload
    def main(self) -> Callable[[F], F]: ...
    def main(self, function: Any = None) -> Any:
        """Register what runs in the main thread until shutdown.

        If it returns early, the daemon keeps running; if it raises, the daemon stops with exit
        status 1.
        """
        return bare_or_called(function, self.add_main)

    def add_main(self, function: Hook) -> None:
        """Register what runs in the main thread; see `main`."""
        self._check_open("a main function")
        check_function(function, "main")
        _check_single("main function", self._registry.main)
        self._registry.main = function


def _check_single(what: str, present: Callable[..., Any] | None) -> None:
    if present is not None:
        raise RegistrationError(
            f"the {what} is already {function_name(present)}(); a daemon has one, so call both "
            "from one function"
        )


def _check_whole(name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RegistrationError(f"{name} must be an int >= {least}, not {describe(value)}")
