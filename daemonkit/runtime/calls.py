"""Calls the hooks of the user's program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..callables import function_name, refuse_unrun
from ..system.log import log_safely
from .forks import ForkGuard


def call_hook(
    hook: Callable[..., Any], kind: str, logger: logging.Logger, *arguments: Any, about: str = ""
) -> BaseException | None:
    """Call a hook; an exception, SystemExit included, is logged and returned.

    about: continues the sentence in the log. A child that the hook forks ends with it.
    """
    guard, error = ForkGuard(), None
    try:
        refuse_unrun(hook(*arguments))
    except BaseException as raised:
        error = raised
    guard.end_child(error)
    if error is not None:
        text, name = "The %s hook %s failed%s", function_name(hook)
        log_safely(logger, logging.ERROR, text, kind, name, about, exc_info=error)
    return error
