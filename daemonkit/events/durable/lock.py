"""Whose the file of a durable queue is, and whether it still is where it was."""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import datetime

from ...exceptions import StartError
from ...runtime.forks import CloseInChild
from ...text import plain


class Owner:
    """Keeps a second daemon from using one file, as long as this process lives (flock(2)).

    path: the file; name: what a second daemon is told of the first. Raises StartError, which names
    the owner.
    """

    def __init__(self, path: str, name: str) -> None:
        self.path = f"{path}-lock"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(f"cannot lock the event queue {path}: {error}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._fd, 1000).decode(errors="replace").strip()
            os.close(self._fd)
            raise StartError(
                f"the event queue {path} is in use by {owner or 'another process'}; "
                "each daemon needs a file of its own (master.queue)"
            ) from None
        # A child that lives on would keep the lock.
        self._child = CloseInChild(self._fd)
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        try:
            os.ftruncate(self._fd, 0)
            owner = plain(f"process {os.getpid()} ({name}, since {since})\n")
            os.pwrite(self._fd, owner.encode(), 0)
        # On a full disk it is a lock without a name.
        except OSError:
            pass

    def release(self) -> None:
        """Leave the file to others."""
        self._child.forget()
        try:
            os.ftruncate(self._fd, 0)
        # The disk fails; nobody reads a name that isn't locked.
        except OSError:
            pass
        os.close(self._fd)


class Place:
    """The files of a queue as they were when it was opened."""

    def __init__(self, path: str) -> None:
        self._identities = {name: _identity(name) for name in (path, f"{path}-wal")}

    def problem(self, *, with_log: bool = True) -> str:
        """What has become of them, "" if they are where they were; with_log: of the write-ahead
        log, too."""
        for name, identity in self._identities.items():
            if (now := _identity(name)) != identity:
                return f"{name} was {'removed' if now is None else 'replaced'}"
            if not with_log:
                break
        return ""


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a full disk, a quota that is used up and a limit of the size of files lead to."""


def lacks(path: str, size: int) -> bool:
    """Whether so many bytes find no room in a file beside this one."""
    # A quota shows only when it is used up. The file is gone however this process ends.
    probe = f"{path}-probe"
    try:
        fd = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.unlink(probe)
            os.posix_fallocate(fd, 0, max(size, 1))
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno in NO_ROOM
    return False


def free_bytes(path: str, most: int) -> int:
    """What is free for us on the disk that a file is on, but no more than `most`, and a quarter
    less where a quota bounds it."""
    disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    free = min(most, disk.f_bavail * disk.f_frsize)
    while free and lacks(path, free):
        free = free * 3 // 4
    return free


class Reserve:
    """Room on the disk that is kept for acknowledging events when there is no other.

    A file beside the queue's, of `size` bytes or, on a small disk, of a fifth of what is free.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path = f"{path}-reserve"
        self.size = free_bytes(path, size * 5) // 5
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.size = max(self.size, os.fstat(self._fd).st_size)
        self.is_there = False

    def take(self) -> bool:
        """Reserve it; whether that could be done."""
        if self.is_there:
            return True
        try:
            os.posix_fallocate(self._fd, 0, max(self.size, 1))
            self.is_there = True
        except OSError:
            self.release()
        return self.is_there

    def has_more(self, size: int) -> bool:
        """Whether it is reserved, and so many bytes are free beside it."""
        return self.take() and not lacks(self._path, size)

    def release(self) -> None:
        """Let the room be used."""
        self.is_there = False
        try:
            os.ftruncate(self._fd, 0)
        # The disk fails, and whoever writes will be told.
        except OSError:
            pass

    def close(self) -> None:
        os.close(self._fd)
