"""Protects the daemon from children that user code forks: they must not continue as the daemon."""

from __future__ import annotations

import os
import sys
import weakref
from contextlib import suppress
from typing import NoReturn


class ForkGuard:
    """Remembers its process, to recognize a forked child."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def end_child(self, error: BaseException | None = None) -> None:
        """Exit if this is a forked child that has returned from user code, or raised `error`.

        It has none of the daemon's other threads, so it can't do the daemon's work.
        """
        if os.getpid() != self._process:
            _exit(error)


class ForkFlag:
    """`is_child` is true in a forked child; cheaper to read than `os.getpid()`.

    Use it for few, long-lived objects: the fork hook can't be unregistered.
    """

    def __init__(self) -> None:
        self.is_child = False
        reference = weakref.ref(self)

        def in_child() -> None:
            flag = reference()
            if flag is not None:
                flag.is_child = True

        os.register_at_fork(after_in_child=in_child)


class CloseInChild:
    """Closes a descriptor in a forked child; use it for few objects, as with ForkFlag."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        reference = weakref.ref(self)

        def in_child() -> None:
            closing = reference()
            if closing is not None and closing._fd >= 0:
                os.close(closing._fd)
                closing._fd = -1

        os.register_at_fork(after_in_child=in_child)

    def forget(self) -> None:
        """Leave the descriptor open in children forked from now on."""
        self._fd = -1


def _exit(error: BaseException | None) -> NoReturn:
    """Exit with the status that `error` would give a Python program."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
        # The hook redacts secrets; it may be the user's, and may raise anything.
        with suppress(BaseException):
            sys.excepthook(type(error), error, error.__traceback__)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        with suppress(Exception):
            stream.flush()
    os._exit(status)
