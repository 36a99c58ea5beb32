"""The lock on a durable queue's file: one daemon at a time."""

from __future__ import annotations

import fcntl
import os
from datetime import datetime

from ...exceptions import StartError
from ...runtime.forks import CloseInChild
from ...text import plain
from .private import open_private


class FileLock:
    """Keeps other daemons from using the file for as long as this process runs (flock(2)).

    path: the file; name: of this daemon, for the error message of a second one.
    Raises StartError, which names the owner.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = f"{path}-lock"
        try:
            self._fd = open_private(self.path)
        except OSError as error:
            raise StartError(f"cannot lock the event queue {path}: {error}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._fd, 1000).decode(errors="replace").strip()
            os.close(self._fd)
            raise StartError(
                f"the event queue {path} is in use by {owner or 'another process'}; "
                "each daemon needs its own file (master.queue)"
            ) from None
        # A forked child that outlives us would keep the lock.
        self._child = CloseInChild(self._fd)
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        try:
            os.ftruncate(self._fd, 0)
            owner = plain(f"process {os.getpid()} ({name}, since {since})\n")
            os.pwrite(self._fd, owner.encode(), 0)
        # On a full disk the lock file doesn't name its owner.
        except OSError:
            pass

    def release(self) -> None:
        """Let others use the file."""
        self._child.forget()
        try:
            os.ftruncate(self._fd, 0)
        # The disk is failing; nobody reads the name once the lock is released.
        except OSError:
            pass
        os.close(self._fd)
