"""How long a thread may run Python code while another one waits for the interpreter."""

from __future__ import annotations

import sys

from ..config.defaults import Settings

PYTHON_DEFAULT = 0.005
"""Seconds."""


def set_switch_interval(seconds: float) -> None:
    """Set the interpreter's switch interval.

    An interval that the program has set itself is kept, unless the configuration names one.
    """
    # Not restored at the end: another daemon in the process may still rely on it.
    is_ours_to_set = sys.getswitchinterval() == PYTHON_DEFAULT
    if is_ours_to_set or seconds != Settings().switch_interval:
        sys.setswitchinterval(seconds)
