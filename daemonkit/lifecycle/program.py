"""The user's program, as the lifecycle calls it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..callables import function_name, refuse_unrun
from ..types import Hook


@dataclass(frozen=True)
class Program:
    """The functions and hooks of the user's program, as the lifecycle calls them.

    shutdown: set to stop the daemon; run: called in the main thread; stop_reason:
    why it stops, for the log; wait_for_reload: waits so many seconds for the reload hooks.
    """

    logger: logging.Logger
    shutdown: threading.Event
    run: Callable[[], Any]
    start_hooks: Sequence[Hook]
    stop_hooks: Sequence[Hook]
    stop_reason: Callable[[], str]
    wait_for_reload: Callable[[float], object]


def call_hook(
    hook: Callable[..., Any], kind: str, logger: logging.Logger, *arguments: Any
) -> BaseException | None:
    """Call a hook; an exception, SystemExit included, is logged and returned."""
    try:
        refuse_unrun(hook(*arguments))
    except BaseException as error:
        logger.exception("The %s hook %s failed", kind, function_name(hook))
        return error
    return None
