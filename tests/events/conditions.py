"""Waiting in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(condition: Callable[[], Any]) -> Any:
    """Wait for a condition, and return its value."""
    end = time.monotonic() + 20
    while not (result := condition()):
        assert time.monotonic() < end, "the condition was not met"
        time.sleep(0.001)
    return result
