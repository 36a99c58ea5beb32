"""What a slave is: work that runs on its own thread."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

from ..callables import accepts, check_options, function_name, is_async, require_function
from ..exceptions import RegistrationError
from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..text import describe, timestamp
from ..types import SlaveMaster
from .restart import RestartPolicy, check_backoff, check_timeout


class Slave:
    """A worker thread. Subclass it and override `run`, or give a function to `@app.slave`.

    name: also the thread's; master: the daemon; logger: named `master.slave`; shutdown: an Event,
    set when this slave is to stop; started: local time, None before.

    The attributes are set before `__init__` runs, so a subclass may define any `__init__`.
    Each restart makes a new object on a new thread, which also runs `__init__`.
    """

    name: str
    master: SlaveMaster
    logger: logging.Logger
    shutdown: ShutdownEvent
    started: datetime | None = None
    _function: Callable[[], Any] | None = None
    _heartbeat: Heartbeat
    _stop_event: ShutdownEvent

    def run(self) -> Any:
        """Do the work until `shutdown` is set; may be `async def`."""
        if self._function is None:
            raise NotImplementedError(f"{type(self).__name__} must override run()")
        return self._function()

    def heartbeat(self) -> None:
        """Signal that this slave is alive, see `timeout`; may be called from any thread."""
        self._heartbeat.beat()

    def sleep(self, seconds: float) -> bool:
        """Wait until `seconds` have passed or the slave is to stop; True when it is to stop."""
        return self._stop_event.wait(seconds)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of this slave, besides its name and state; may be overridden."""
        return {"name": self.name, "started": timestamp(self.started)}

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Send an event to Juggler; see `Daemon.send_event_to_juggler`."""
        self.master.send_event_to_juggler(host, service, status, description)


SlaveTarget = type[Slave] | Callable[[], Any] | Callable[[Any], Any]
"""What can be registered: a Slave subclass, or a function that takes the slave or nothing."""


class SlaveOptions(TypedDict, total=False):
    """Options of a slave; see `Daemon.slave`."""

    name: str | None
    every: float | None
    restart: Literal["on-failure", "always", "never"]
    backoff: float | tuple[float, float]
    max_restarts: int | None
    within: float
    critical: bool
    after: str | Sequence[str]
    timeout: float | None


OPTIONS = frozenset(SlaveOptions.__annotations__)
POLICY_OPTIONS = frozenset(RestartPolicy._fields)


@dataclass(frozen=True)
class SlaveSpec:
    """A slave as it was registered; see `Daemon.slave`.

    cls: Slave itself when `function` is what was registered.
    """

    name: str
    cls: type[Slave] = Slave
    function: Callable[..., Any] | None = None
    every: float | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    critical: bool = True
    after: tuple[str, ...] = ()
    timeout: float | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        target: SlaveTarget,
        registrar: str,
        options: SlaveOptions,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> SlaveSpec:
        """Check what was passed to `registrar`; raises RegistrationError."""
        given: dict[str, Any] = dict(options)
        kwargs = dict(kwargs or {})
        name = given.pop("name", None)
        if name is None and callable(target):
            name = function_name(target)
        if isinstance(target, type):
            slave_class, function = _checked_class(target, registrar, args, kwargs), None
        else:
            slave_class, function = Slave, _checked_function(target, registrar, args)
        if not isinstance(name, str) or not name:
            raise RegistrationError(f"a slave's name must be a string, not {describe(name)}")
        check_options(given, OPTIONS, registrar)
        for option in ("every", "timeout"):
            check_timeout(option, given.get(option))
        if not isinstance(given.get("critical", True), bool):
            raise RegistrationError(
                f"critical must be True or False, not {describe(given['critical'])}"
            )
        if "backoff" in given:
            given["backoff"] = check_backoff("backoff", given["backoff"])
        policy = RestartPolicy(**{key: given.pop(key) for key in POLICY_OPTIONS & given.keys()})
        policy.check()
        given["after"] = _checked_names(given.get("after", ()))
        return cls(name, slave_class, function, policy=policy, args=args, kwargs=kwargs, **given)

    @property
    def work(self) -> Callable[..., Any]:
        """The user's code: the function, or the class's `run`."""
        return self.function or self.cls.run

    @property
    def is_async(self) -> bool:
        """Whether the work is a coroutine function."""
        return is_async(self.work)

    def create(self, master: SlaveMaster, shutdown: ShutdownEvent, heartbeat: Heartbeat) -> Slave:
        """Create the slave, to be stopped by `shutdown`; raises what its `__init__` raises."""
        slave = self.cls.__new__(self.cls)
        slave.name = self.name
        slave.master = master
        slave.logger = logging.getLogger(f"{master.name}.{self.name}")
        # Twice, because the user's code may replace `shutdown`.
        slave.shutdown = slave._stop_event = shutdown
        slave._heartbeat = heartbeat
        function = self.function
        if function is not None and accepts(function, "slave", (), ("slave",)):
            function = functools.partial(function, slave)
        slave._function = function
        slave.__init__(*self.args, **self.kwargs)  # type: ignore[misc]
        return slave


def split_options(target: Any, keywords: dict[str, Any]) -> tuple[SlaveOptions, dict[str, Any]]:
    """Separate the options in `run_slave`'s keywords from the arguments for a Slave subclass.

    Parameters that its `__init__` names are arguments, except `name` and `every`; with `**kwargs`,
    so are all that aren't options. Raises RegistrationError for other keywords.
    """
    own: set[str] = set()
    takes_any = False
    if isinstance(target, type):
        try:
            parameters = inspect.signature(target).parameters
        # A class without a signature: its `__init__` must check them.
        except (TypeError, ValueError):
            takes_any = True
        else:
            takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
            own = {*parameters} - {"name", "every"}
    options: Any = {
        key: value
        for key, value in keywords.items()
        if key not in own and (key in OPTIONS or not takes_any)
    }
    check_options(options, OPTIONS | own, "run_slave")
    return options, {key: keywords[key] for key in keywords if key not in options}


def _checked_names(after: Any) -> tuple[str, ...]:
    names = (after,) if isinstance(after, str) else after
    if not isinstance(names, tuple | list | set | frozenset) or not all(
        isinstance(name, str) and name for name in names
    ):
        raise RegistrationError(
            f"after must be a slave's name, or a list of names, not {describe(after)}"
        )
    return tuple(names)


def _checked_class(
    target: type, registrar: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> type[Slave]:
    if not issubclass(target, Slave):
        raise RegistrationError(
            f"{registrar} takes a function or a Slave subclass, not the class {target.__name__}"
        )
    if target.run is Slave.run:
        raise RegistrationError(f"the slave {target.__name__} must override run()")
    require_function(target.run, target.__name__, may_be_async=True)
    try:
        inspect.signature(target).bind(*args, **kwargs)
    except TypeError as error:
        raise RegistrationError(
            f"cannot create the slave {target.__name__}: {error}; pass arguments to run_slave"
        ) from None
    return target


def _checked_function(target: Any, registrar: str, args: tuple[Any, ...]) -> Callable[..., Any]:
    require_function(target, registrar, may_be_async=True)
    accepts(target, registrar, (), ("slave",))
    if args:
        raise RegistrationError(
            f"{registrar} passes arguments to a Slave subclass only; {function_name(target)}() "
            "is a function: use functools.partial"
        )
    function: Callable[..., Any] = target
    return function
