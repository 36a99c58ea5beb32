"""What a child that user code has forked may not do: go on as if it were the daemon."""

from __future__ import annotations

import os
import sys
import traceback
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
