"""What a registered function takes, found out before it is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .exceptions import RegistrationError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def describe(value: Any) -> str:
    """A value and its type, for an error message."""
    return f"{value!r} ({type(value).__name__})"


def function_name(function: Callable[..., Any]) -> str:
    """The name a function is registered under."""
    name = getattr(function, "__name__", None) or getattr(
        getattr(function, "func", None), "__name__", None
    )
    return name or type(function).__name__


def require_function(function: Any, registrar: str, *, may_be_async: bool = False) -> None:
    """Raise RegistrationError unless `function` can be called and its call does the work."""
    if not callable(function):
        raise RegistrationError(
            f"{registrar} takes a function, not {describe(function)}; options are given by name"
        )
    if not may_be_async and inspect.iscoroutinefunction(function):
        raise RegistrationError(
            f"{registrar} takes a plain function, and {function_name(function)}() is async def: "
            "nothing would await it; only a slave may be async"
        )


def accepts(function: Callable[..., Any], registrar: str, *forms: tuple[str, ...]) -> int:
    """How many positional arguments to call `function` with, of those that `forms` allow.

    The longest form wins whose further parameters are required, or named as in the form.
    Raises RegistrationError when none fits.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        # Some built-in callables have no signature; the shortest form is the common one.
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
