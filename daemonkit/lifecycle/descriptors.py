"""The standard descriptors 0, 1 and 2, which a process may be started without."""

from __future__ import annotations

import os
import sys

STREAMS = {0: ("stdin", "r"), 1: ("stdout", "w"), 2: ("stderr", "w")}


def open_standard_descriptors() -> None:
    """Open those of the descriptors 0, 1 and 2 that are closed on /dev/null.

    Otherwise the next file or socket gets the number, and whatever is printed goes into it. Call
    this before anything else is opened; it does nothing in a process that has all three.
    """
    for fd, (name, mode) in STREAMS.items():
        was_closed = not _is_open(fd)
        if was_closed:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            # Something else may have the number by now.
            number = fd if was_closed else os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
