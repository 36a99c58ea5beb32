"""The monotonic clock, and the timeouts that the kernel accepts."""

from __future__ import annotations

import time
from functools import partial

LONGEST_WAIT = 3600.0
"""Seconds. epoll(7) and poll(2) take at most 2**31 milliseconds."""

monotonic = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
"""Seconds, as of `time.monotonic`, which freezegun replaces: a daemon must not stall in a test that
freezes the time for the user's code."""


def kernel_timeout(seconds: float | None) -> float | None:
    """A timeout that the kernel accepts; a longer one ends early. None: without a limit."""
    return None if seconds is None else min(max(0.0, seconds), LONGEST_WAIT)
