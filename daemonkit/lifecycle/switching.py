"""How long a thread may compute while another one waits for the interpreter."""

from __future__ import annotations

import sys

from ..config.defaults import SETTINGS

PYTHONS_OWN = 0.005
"""Seconds, if nobody has set another interval."""


def set_switch_interval(seconds: float) -> None:
    """Let the process's threads compute for so long at a time; an interval that the program has set
    itself stays, unless the configuration asks for another than the default."""
    # It isn't put back in the end: another daemon of the process may still live by it.
    is_ours_to_set = sys.getswitchinterval() == PYTHONS_OWN
    if is_ours_to_set or seconds != SETTINGS["switch_interval"].default:
        sys.setswitchinterval(seconds)
