"""What a child that user code has forked may not do: go on as if it were the daemon."""

from __future__ import annotations

import os
import sys
import traceback
import weakref
from typing import NoReturn


class ForkGuard:
    """Notices that the code it runs in has been forked, and is in the child."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def end_child(self, error: BaseException | None = None) -> None:
        """End the process if it is a child: it has come back from user code, by `error` or not,
        to where the daemon's next work begins, and no other thread of ours is there."""
        if os.getpid() != self._process:
            _end(error)


class ForkFlag:
    """`is_child` is true in a forked child: for where asking the kernel each time costs too much.

    It stays registered with the interpreter as long as that lives, so there may be only few.
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
    """A descriptor that a forked child closes; as with ForkFlag, there may be only few."""

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
        """Leave it alone from now on."""
        self._fd = -1


def _end(error: BaseException | None) -> NoReturn:
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
        os.write(2, "".join(traceback.format_exception(error)).encode("utf-8", "replace"))
    if sys.stdout is not None:
        sys.stdout.flush()
    os._exit(status)
