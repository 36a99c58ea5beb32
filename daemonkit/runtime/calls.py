"""Calls the hooks of the user's program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..callables import function_name, refuse_unrun
from .failures import FailureLog
from .forks import ForkGuard


def call_hook(
    hook: Callable[..., Any],
    kind: str,
    log: logging.Logger | FailureLog,
    *arguments: Any,
    about: str = "",
) -> BaseException | None:
    """Call a hook; an exception, SystemExit included, is logged and returned.

    log: for a hook that is called again and again, one that limits repeated failures; about:
    continues the sentence in the log. A child that the hook forks ends with it.
    """
    guard, error = ForkGuard(), None
    try:
        refuse_unrun(hook(*arguments))
    except BaseException as raised:
        error = raised
    guard.end_child(error)
    if error is not None:
        failures = log if isinstance(log, FailureLog) else FailureLog(log)
        failures.log(error, f"The {kind} hook {function_name(hook)} failed", about)
    return error
