"""What this process is to the others that share a queue."""

from __future__ import annotations

import os
import random
import socket
import time

from .census import OWN_LIMIT

try:
    _CLOCK = time.CLOCK_BOOTTIME
except AttributeError:  # pragma: no cover
    _CLOCK = time.CLOCK_MONOTONIC


def awake() -> float:
    """Seconds, also while the machine was suspended (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(_CLOCK)


class Node:
    """One name of this process; timeout: seconds, `node_timeout`.

    It gets another name when it was taken for dead, so that nobody mistakes what it did before for
    what it does now.
    """

    def __init__(self, timeout: float) -> None:
        self.name = new_name()
        self.fresh_until = 0.0
        """Until when it may hand out what it holds: after that, it may have been taken for dead."""
        self.is_joined = False
        self._limit = OWN_LIMIT * timeout

    def beat(self, began: float) -> None:
        """The engine has answered a heartbeat that began then, see `awake`."""
        self.fresh_until = began + self._limit

    @property
    def is_fresh(self) -> bool:
        """Whether it may hand out what it holds."""
        return awake() <= self.fresh_until

    def rename(self) -> None:
        """It was taken for dead: begin anew."""
        self.name, self.is_joined, self.fresh_until = new_name(), False, 0.0


def new_name() -> str:
    """A name that no other node has, and that says where it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{random.SystemRandom().getrandbits(32):08x}"
