"""What a slave is: a piece of work on a thread of its own."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .calls import accepts, describe, function_name, is_async, require_function
from .exceptions import RegistrationError
from .types import Master


class Slave:
    """A worker thread. Subclass it and override `run`, or give a function to `@app.slave`.

    name: also the thread's; master: the daemon; logger: named `master.slave`; shutdown: an Event,
    set when this slave is to stop; started: local time, None before.

    The attributes are there before `__init__` runs, which a subclass may define as it likes.
    """

    name: str
    master: Master
    logger: logging.Logger
    shutdown: threading.Event
    started: datetime | None = None
    _function: Callable[[], Any] | None = None

    def run(self) -> Any:
        """Do the work until `shutdown` is set; may be `async def`."""
        if self._function is None:
            raise NotImplementedError(f"{type(self).__name__} must override run()")
        return self._function()

    def status(self) -> dict[str, Any]:
        """What `/status` shows of this slave; an override may add to it, or return anything."""
        return {"name": self.name, "started": timestamp(self.started)}

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Send an event to Juggler; see `Daemon.send_event_to_juggler`."""
        self.master.send_event_to_juggler(host, service, status, description)


SlaveTarget = type[Slave] | Callable[[], Any] | Callable[[Any], Any]
"""What can be registered: a Slave subclass, or a function that takes the slave or nothing."""


@dataclass(frozen=True)
class SlaveSpec:
    """A slave as it was registered; see `Daemon.add_slave`.

    cls: Slave itself when `function` is what was registered.
    """

    name: str
    cls: type[Slave] = Slave
    function: Callable[..., Any] | None = None
    every: float | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def make(
        cls,
        target: SlaveTarget,
        registrar: str,
        *,
        name: str | None = None,
        every: float | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> SlaveSpec:
        """Check what was given to `registrar`; raises RegistrationError."""
        if name is None and callable(target):
            name = function_name(target)
        if isinstance(target, type):
            slave_class, function = _checked_class(target, registrar, args, kwargs or {}), None
        else:
            slave_class, function = Slave, _checked_function(target, registrar, args, kwargs)
        if not isinstance(name, str) or not name:
            raise RegistrationError(f"a slave's name must be a string, not {describe(name)}")
        if every is not None and (
            isinstance(every, bool)
            or not isinstance(every, int | float)
            or not 0 < every <= threading.TIMEOUT_MAX
        ):
            raise RegistrationError(f"every must be a number of seconds > 0, not {describe(every)}")
        return cls(name, slave_class, function, every, args, dict(kwargs or {}))

    @property
    def is_async(self) -> bool:
        """Whether the work is a coroutine function."""
        return is_async(self.function or self.cls.run)

    def create(self, master: Master, shutdown: threading.Event) -> Slave:
        """Make the slave, to be stopped by `shutdown`; raises what its `__init__` raises."""
        slave = self.cls.__new__(self.cls)
        slave.name = self.name
        slave.master = master
        slave.logger = logging.getLogger(f"{master.name}.{self.name}")
        slave.shutdown = shutdown
        function = self.function
        if function is not None and accepts(function, "slave", (), ("slave",)):
            function = functools.partial(function, slave)
        slave._function = function
        slave.__init__(*self.args, **self.kwargs)  # type: ignore[misc]
        return slave


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
        raise RegistrationError(
            f"the slave {target.__name__} can't be made: {error}; run_slave passes arguments on"
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


def timestamp(moment: datetime | None) -> str | None:
    """Local time as `/status` shows it: 2018-02-01 18:41:37.876631."""
    return None if moment is None else moment.isoformat(sep=" ", timespec="microseconds")
