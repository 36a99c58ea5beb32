"""What a slave is: a piece of work on a thread of its own."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
import math
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from ..callables import accepts, check_options, function_name, is_async, require_function
from ..exceptions import RegistrationError
from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..text import describe, timestamp
from ..types import Master
from .restart import RestartPolicy, check_timeout

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Slave:
    """A worker thread. Subclass it and override `run`, or give a function to `@app.slave`.

    name: also the thread's; master: the daemon; logger: named `master.slave`; shutdown: an Event,
    set when this slave is to stop; started: local time, None before.

    The attributes are there before `__init__` runs, which a subclass may define as it likes.
    Each restart makes a new object, on a new thread, which runs `__init__` too.
    """

    name: str
    master: Master
    logger: logging.Logger
    shutdown: ShutdownEvent
    started: datetime | None = None
    _function: Callable[[], Any] | None = None
    _heartbeat: Heartbeat
    _told: ShutdownEvent

    def run(self) -> Any:
        """Do the work until `shutdown` is set; may be `async def`."""
        if self._function is None:
            raise NotImplementedError(f"{type(self).__name__} must override run()")
        return self._function()

    def heartbeat(self) -> None:
        """Show that this slave is alive, for its `timeout`; may be called from any thread."""
        self._heartbeat.beat()

    def sleep(self, seconds: float) -> bool:
        """Wait until `seconds` have passed or the slave is to stop; True when it is to stop."""
        return self._told.wait(seconds)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of this slave; an override may add to it, or return anything."""
        return {"name": self.name, "started": timestamp(self.started)}

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Send an event to Juggler; see `Daemon.send_event_to_juggler`."""
        self.master.send_event_to_juggler(host, service, status, description)


SlaveTarget = type[Slave] | Callable[[], Any] | Callable[[Any], Any]
"""What can be registered: a Slave subclass, or a function that takes the slave or nothing."""


class SlaveOptions(TypedDict, total=False):
    """What can be said of a slave besides its work; see `Daemon.slave`."""

    name: str | None
    every: float | None
    restart: Literal["on-failure", "always", "never"]
    backoff: tuple[float, float]
    max_restarts: int | None
    within: float
    critical: bool
    after: str | Sequence[str]
    timeout: float | None


OPTIONS = frozenset(SlaveOptions.__annotations__)
POLICY_OPTIONS = frozenset(RestartPolicy.__dataclass_fields__)


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
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        **options: Unpack[SlaveOptions],
    ) -> SlaveSpec:
        """Check what was given to `registrar`; raises RegistrationError."""
        given: dict[str, Any] = dict(options)
        name = given.pop("name", None)
        if name is None and callable(target):
            name = function_name(target)
        if isinstance(target, type):
            slave_class, function = _checked_class(target, registrar, args, kwargs or {}), None
        else:
            slave_class, function = Slave, _checked_function(target, registrar, args, kwargs)
        if not isinstance(name, str) or not name:
            raise RegistrationError(f"a slave's name must be a string, not {describe(name)}")
        check_options(given, OPTIONS, registrar)
        for option in ("every", "timeout"):
            check_timeout(option, given.get(option))
        if not isinstance(given.get("critical", True), bool):
            raise RegistrationError(
                f"critical must be True or False, not {describe(given['critical'])}"
            )
        policy = RestartPolicy(**{key: given.pop(key) for key in POLICY_OPTIONS & given.keys()})
        policy.check()
        given["after"] = _checked_names(given.get("after", ()))
        return cls(
            name,
            slave_class,
            function,
            policy=policy,
            args=args,
            kwargs=dict(kwargs or {}),
            **given,
        )

    @property
    def is_async(self) -> bool:
        """Whether the work is a coroutine function."""
        return is_async(self.function or self.cls.run)

    def place_of(self, error: BaseException) -> str:
        """Where `error` came from: the deepest line of the slave's own file, or else of any."""
        code = getattr(inspect.unwrap(self.function or self.cls.run), "__code__", None)
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if code and frame.filename == code.co_filename]
        for frame in reversed(own or frames):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
        return ""

    def create(self, master: Master, shutdown: ShutdownEvent, heartbeat: Heartbeat) -> Slave:
        """Make the slave, to be stopped by `shutdown`; raises what its `__init__` raises."""
        slave = self.cls.__new__(self.cls)
        slave.name = self.name
        slave.master = master
        slave.logger = logging.getLogger(f"{master.name}.{self.name}")
        slave.shutdown = slave._told = shutdown
        slave._heartbeat = heartbeat
        function = self.function
        if function is not None and accepts(function, "slave", (), ("slave",)):
            function = functools.partial(function, slave)
        slave._function = function
        slave.__init__(*self.args, **self.kwargs)  # type: ignore[misc]
        return slave


def split_options(target: Any, keywords: dict[str, Any]) -> tuple[SlaveOptions, dict[str, Any]]:
    """Part the options from the arguments for a Slave subclass's `__init__`, which win: those that
    its `__init__` names itself, but for `name` and `every`, are its own."""
    own: set[str] = set()
    if isinstance(target, type):
        try:
            own = {*inspect.signature(target).parameters} - {"name", "every"}
        except (TypeError, ValueError):
            pass
    options: Any = {key: keywords[key] for key in keywords if key in OPTIONS and key not in own}
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
    target: type, registrar: str, args: tuple[Any, ...], kwargs: dict[str, Any]
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
        near = [difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.6) for key in kwargs]
        hint = next((f"did you mean {n[0]!r}?" for n in near if n), "run_slave passes arguments on")
        raise RegistrationError(
            f"the slave {target.__name__} can't be made: {error}; {hint}"
        ) from None
    return target


def _checked_function(
    target: Any, registrar: str, args: tuple[Any, ...], kwargs: dict[str, Any] | None
) -> Callable[..., Any]:
    require_function(target, registrar, may_be_async=True)
    accepts(target, registrar, (), ("slave",))
    if args or kwargs:
        raise RegistrationError(
            f"{registrar} passes arguments to a Slave subclass only; {function_name(target)}() "
            "is a function: use functools.partial"
        )
    function: Callable[..., Any] = target
    return function


class Cadence:
    """The times of a periodic slave's ticks: the first at once, those missed are left out.

    every: seconds from one tick's beginning to the next one's; clock: monotonic seconds.
    """

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every
        self._clock = clock
        self._next = clock()

    def delay(self) -> float:
        """Seconds to wait before the next tick."""
        now = self._clock()
        self._next += self._every
        if self._next < now:
            missed = math.ceil((now - self._next) / self._every)
            self._next += missed * self._every
        return max(0.0, self._next - now)
