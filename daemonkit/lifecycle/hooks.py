"""Calling the user's hooks."""

from __future__ import annotations

import logging

from ..callables import function_name, refuse_unrun
from ..types import Hook


def call_hook(hook: Hook, kind: str, logger: logging.Logger) -> BaseException | None:
    """Call a hook; an exception, SystemExit included, is logged and returned."""
    try:
        refuse_unrun(hook())
    except BaseException as error:
        logger.exception("The %s hook %s failed", kind, function_name(hook))
        return error
    return None
