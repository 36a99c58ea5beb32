"""A slave as it was registered: what runs, and its options."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypedDict

from ..callables import accepts, check_options, function_name, is_async, require_function
from ..exceptions import RegistrationError
from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..text import describe
from ..types import SlaveMaster
from .restart import NEVER, RestartPolicy, check_backoff, check_timeout
from .slave import Slave

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
    bound: bool
    group: str | None
    timeout: float | None
    stop_timeout: float | None
    ends_daemon: bool


OPTIONS = frozenset(SlaveOptions.__annotations__)
POLICY_OPTIONS = frozenset(RestartPolicy._fields)


@dataclass(frozen=True, eq=False, repr=False)
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
    bound: bool = False
    group: str | None = None
    timeout: float | None = None
    stop_timeout: float | None = None
    ends_daemon: bool = False
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
        for option in ("every", "timeout", "stop_timeout"):
            check_timeout(option, given.get(option))
        for option in ("critical", "bound", "ends_daemon"):
            if not isinstance(given.get(option, True), bool):
                raise RegistrationError(
                    f"{option} must be True or False, not {describe(given[option])}"
                )
        if "backoff" in given:
            given["backoff"] = check_backoff("backoff", given["backoff"])
        policy = RestartPolicy(**{key: given.pop(key) for key in POLICY_OPTIONS & given.keys()})
        policy.check()
        given["after"] = _checked_names(given.get("after", ()))
        if given.get("bound") and not given["after"]:
            raise RegistrationError("bound needs after: the slaves that it is bound to")
        _check_group(given.get("group"), policy)
        return cls(name, slave_class, function, policy=policy, args=args, kwargs=kwargs, **given)

    @classmethod
    def of_call(
        cls, target: SlaveTarget, args: tuple[Any, ...], keywords: dict[str, Any]
    ) -> SlaveSpec:
        """The slave that a call of `run_slave` asks for; raises RegistrationError."""
        options, arguments = split_options(target, keywords)
        return cls.make(target, "run_slave", options, args, arguments)

    @property
    def work(self) -> Callable[..., Any]:
        """The user's code: the function, or the class's `run`."""
        return self.function or self.cls.run

    @property
    def is_async(self) -> bool:
        """Whether the work is a coroutine function."""
        return is_async(self.work)

    @property
    def bound_to(self) -> tuple[str, ...]:
        """The slaves without which it doesn't run."""
        return self.after if self.bound else ()

    def without_work(self) -> SlaveSpec:
        """The same without the user's code and its arguments, and so without their memory."""
        return replace(self, cls=Slave, function=None, args=(), kwargs={})

    def create(
        self,
        master: SlaveMaster,
        shutdown: ShutdownEvent,
        heartbeat: Heartbeat,
        run_owned: Callable[..., Slave | None],
    ) -> Slave:
        """Create the slave, to be stopped by `shutdown`; raises what its `__init__` raises.

        run_owned: what `Slave.run_slave` calls.
        """
        slave = self.cls.__new__(self.cls)
        slave.name = self.name
        slave.master = master
        slave.logger = logging.getLogger(f"{master.name}.{self.name}")
        # Twice, because the user's code may replace `shutdown`.
        slave.shutdown = slave._stop_event = shutdown
        slave._heartbeat = heartbeat
        slave._run_owned = run_owned
        # No reference to the slave itself: its memory is to be freed at its end, not some time
        # later, when Python looks for cycles.
        if (function := self.function) is not None:
            takes_slave = accepts(function, "slave", (), ("slave",))
            slave._function = function if takes_slave else lambda _: function()
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
    return tuple(dict.fromkeys(names))


def _check_group(group: Any, policy: RestartPolicy) -> None:
    if group is None:
        return
    if not isinstance(group, str) or not group:
        raise RegistrationError(f"group must be the group's name, not {describe(group)}")
    if policy.restart == NEVER:
        raise RegistrationError(
            f"a group restarts its members together: restart={NEVER!r} can't be in one"
        )


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
