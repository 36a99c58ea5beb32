"""Hooks: the user's functions that the daemon calls at certain moments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from .callables import accepts, function_name, require_function
from .events.processor import DeadLetterHook
from .exceptions import RegistrationError
from .types import HealthChangeHook, Hook, ValidateHook

F = TypeVar("F", bound=Hook)
V = TypeVar("V", bound=ValidateHook)
D = TypeVar("D", bound=DeadLetterHook)
H = TypeVar("H", bound=HealthChangeHook)


@dataclass(eq=False, repr=False)
class Hooks:
    """The hooks of one daemon, each kind in the order of registration."""

    start: list[Hook] = field(default_factory=list)
    stop: list[Hook] = field(default_factory=list)
    reload: list[Hook] = field(default_factory=list)
    validate: list[ValidateHook] = field(default_factory=list)
    dead_letter: list[DeadLetterHook] = field(default_factory=list)
    health_change: list[HealthChangeHook] = field(default_factory=list)


class Freezable:
    """Accepts registrations until the daemon starts."""

    def __init__(self) -> None:
        self._frozen = False

    def _freeze(self) -> None:
        self._check_unstarted()
        self._frozen = True

    def _check_unstarted(self) -> None:
        if self._frozen:
            raise RegistrationError("the daemon was already started; create another Daemon")

    def _check_open(self, what: str, instead: str = "register it before start()") -> None:
        if self._frozen:
            raise RegistrationError(
                f"{what} can't be registered once the daemon has started; {instead}"
            )


class HookRegistrars(Freezable):
    """Registers hooks; see `Registrars`."""

    def __init__(self) -> None:
        super().__init__()
        self._hooks = Hooks()

    @overload
    def on_start(self, function: F) -> F: ...
    @overload
    def on_start(self) -> Callable[[F], F]: ...
    def on_start(self, function: Any = None) -> Any:
        """Register a function called, in order, before the event processor and slaves start.

        If it raises, the daemon does not start: exit status 3.
        """
        return bare_or_called(function, self.add_start_hook)

    def add_start_hook(self, function: Hook) -> None:
        """Register a hook; see `on_start`."""
        self._add_hook(self._hooks.start, function, "on_start", ())

    @overload
    def on_stop(self, function: F) -> F: ...
    @overload
    def on_stop(self) -> Callable[[F], F]: ...
    def on_stop(self, function: Any = None) -> Any:
        """Register a function called, in reverse order, after the slaves have stopped."""
        return bare_or_called(function, self.add_stop_hook)

    def add_stop_hook(self, function: Hook) -> None:
        """Register a hook; see `on_stop`."""
        self._add_hook(self._hooks.stop, function, "on_stop", ())

    @overload
    def on_reload(self, function: F) -> F: ...
    @overload
    def on_reload(self) -> Callable[[F], F]: ...
    def on_reload(self, function: Any = None) -> Any:
        """Register a function called, in order, after SIGHUP has loaded the configuration again."""
        return bare_or_called(function, self.add_reload_hook)

    def add_reload_hook(self, function: Hook) -> None:
        """Register a hook; see `on_reload`."""
        self._add_hook(self._hooks.reload, function, "on_reload", ())

    @overload
    def on_validate(self, function: V) -> V: ...
    @overload
    def on_validate(self) -> Callable[[V], V]: ...
    def on_validate(self, function: Any = None) -> Any:
        """Register a check of the configuration: `check(config, master_config)`.

        It is called before the start, and on SIGHUP before the new configuration takes effect. What
        it raises is a configuration error: the daemon exits with status 2, or keeps the old
        configuration.
        """
        return bare_or_called(function, self.add_validate_hook)

    def add_validate_hook(self, function: ValidateHook) -> None:
        """Register a hook; see `on_validate`."""
        self._add_hook(self._hooks.validate, function, "on_validate", ("config", "master_config"))

    @overload
    def on_dead_letter(self, function: D) -> D: ...
    @overload
    def on_dead_letter(self) -> Callable[[D], D]: ...
    def on_dead_letter(self, function: Any = None) -> Any:
        """Register a function called for each event that is given up: `dead(event, failure)`.

        failure: a FailedAttempt. Called on the handler's thread, once the dead letter is stored.
        """
        return bare_or_called(function, self.add_dead_letter_hook)

    def add_dead_letter_hook(self, function: DeadLetterHook) -> None:
        """Register a hook; see `on_dead_letter`."""
        self._add_hook(self._hooks.dead_letter, function, "on_dead_letter", ("event", "failure"))

    @overload
    def on_health_change(self, function: H) -> H: ...
    @overload
    def on_health_change(self) -> Callable[[H], H]: ...
    def on_health_change(self, function: Any = None) -> Any:
        """Register a function called when the health of the daemon changes: `changed(problems)`.

        problems: a list of Problem, empty when the daemon is healthy again. Called on the timer's
        thread, so it must not block.
        """
        return bare_or_called(function, self.add_health_change_hook)

    def add_health_change_hook(self, function: HealthChangeHook) -> None:
        """Register a hook; see `on_health_change`."""
        self._add_hook(self._hooks.health_change, function, "on_health_change", ("problems",))

    def _add_hook(
        self, hooks: list[Any], function: Any, registrar: str, parameters: tuple[str, ...]
    ) -> None:
        self._check_open(f"an {registrar} hook")
        check_function(function, registrar, parameters)
        if function in hooks:
            raise RegistrationError(
                f"{function_name(function)}() is already an {registrar} hook; register it once"
            )
        hooks.append(function)


def bare_or_called(function: Any, register: Callable[[Any], None]) -> Any:
    """The result of a decorator that is used with or without parentheses."""

    def registrar(target: Any) -> Any:
        register(target)
        return target

    return registrar if function is None else registrar(function)


def check_function(function: Any, registrar: str, parameters: tuple[str, ...] = ()) -> None:
    """Raise RegistrationError unless `function` can be called with these parameters."""
    require_function(function, registrar)
    accepts(function, registrar, parameters)
