"""Checks functions when they are registered, and what they return."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
)
from typing import Any, TypeVar

from .exceptions import RegistrationError
from .text import describe

T = TypeVar("T")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
# Most results; this look-up takes a tenth of the time of the checks after it.
_PLAIN = frozenset({type(None), bool, int, float, str, bytes, dict, list, tuple})
_UNRUN = (
    (Coroutine, "a coroutine, which nothing awaits"),
    (Generator, "a generator, which nothing iterates over"),
    (AsyncGenerator, "an async generator, which nothing iterates over"),
    (Awaitable, "an awaitable, which nothing awaits"),
)


def function_name(function: Callable[..., Any]) -> str:
    """The name under which a function is registered, unless another one is given."""
    name = getattr(function, "__name__", None) or getattr(
        getattr(function, "func", None), "__name__", None
    )
    return name or type(function).__name__


def require_function(function: Any, registrar: str, *, may_be_async: bool = False) -> None:
    """Raise RegistrationError unless `function` is callable and calling it runs its body."""
    if not callable(function):
        raise RegistrationError(
            f"{registrar} takes a function, not {describe(function)}; options are given by name"
        )
    name = function_name(function)
    if any(
        inspect.isgeneratorfunction(f) or inspect.isasyncgenfunction(f) for f in _called(function)
    ):
        raise RegistrationError(
            f"{registrar} takes a plain function, and {name}() is a generator: "
            "calling it would run nothing"
        )
    if not may_be_async and is_async(function):
        raise RegistrationError(
            f"{registrar} takes a plain function, and {name}() is async def: "
            "nothing would await it; only a slave may be async"
        )


def _called(function: Any) -> tuple[Any, Any]:
    """A callable, and the `__call__` of its class."""
    return function, getattr(type(function), "__call__", None)  # noqa: B004


def is_async(function: Any) -> bool:
    """Whether calling `function` returns a coroutine."""
    return any(map(inspect.iscoroutinefunction, _called(function)))


def refuse_unrun(result: T) -> T:
    """Return the result of a user's function; raise TypeError if it is work that was not run."""
    if type(result) in _PLAIN:
        return result
    for kind, what in _UNRUN:
        if isinstance(result, kind):
            # Otherwise Python warns that it was never awaited.
            if isinstance(result, Coroutine | Generator):
                result.close()
            raise TypeError(f"it returned {what}: do the work before returning")
    return result


def check_options(given: Iterable[str], known: Iterable[str], registrar: str) -> None:
    """Raise RegistrationError for an unknown option, with the most similar known one."""
    known = sorted(known)
    for option in given:
        if option not in known:
            nearest = difflib.get_close_matches(option, known, n=1, cutoff=0.5)
            hint = (
                f"did you mean {nearest[0]!r}?"
                if nearest
                else f"the options are {', '.join(known)}"
            )
            raise RegistrationError(f"{registrar} has no option {option!r}; {hint}")


def accepts(function: Callable[..., Any], registrar: str, *forms: tuple[str, ...]) -> int:
    """How many positional arguments to pass to `function`.

    forms: the accepted signatures, as parameter names. The longest one wins whose additional
    parameters are required or named as in the form. Raises RegistrationError when none fits.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some built-in callables have no signature; the shortest form is the usual one.
        return min(map(len, forms))
    required = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in _POSITIONAL and parameter.default is parameter.empty
    ]
    for form in sorted(forms, key=len, reverse=True):
        fits = _binds(signature, form)
        wanted = len(required) >= len(form) or (form and form[-1] in signature.parameters)
        if fits and (wanted or not form):
            return len(form)
    for form in sorted(forms, key=len):
        if _binds(signature, form):
            return len(form)
    shapes = " or ".join(f"({', '.join(form)})" for form in forms)
    raise RegistrationError(
        f"{registrar} takes a function that can be called with {shapes}, "
        f"not {function_name(function)}{signature}"
    )


def _binds(signature: inspect.Signature, form: tuple[str, ...]) -> bool:
    try:
        signature.bind(*form)
    except TypeError:
        return False
    return True
