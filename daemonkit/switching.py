"""How long a thread may compute while another one waits for the interpreter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .defaults import SETTINGS

PYTHONS_OWN = 0.005
"""Seconds, if nobody has set another interval."""


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let threads compute for so long at a time; one that the program has set itself stays, unless
    the configuration asks for another."""
    before = sys.getswitchinterval()
    if before == PYTHONS_OWN or seconds != SETTINGS["switch_interval"].default:
        sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
