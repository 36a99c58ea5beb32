"""Disk space: how much is free, and a reserve for acknowledging events on a full disk."""

from __future__ import annotations

import errno
import os

from .private import open_private

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk is full, the quota is used up, or the file would exceed the limit of its size."""


def probe_space(path: str, size: int) -> bool:
    """Try to allocate `size` bytes beside the file; False if there is no space for them."""
    # A quota shows only once it is used up. Unlinked at once, the probe never outlives the process.
    probe = f"{path}-probe"
    try:
        fd = open_private(probe)
        try:
            os.unlink(probe)
            os.posix_fallocate(fd, 0, max(size, 1))
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno not in OUT_OF_SPACE
    return True


def free_bytes(path: str, most: int) -> int:
    """Free space on the file's disk, `most` at the most; an estimate where a quota applies."""
    disk = os.statvfs(os.path.dirname(os.path.abspath(path)))
    free = min(most, disk.f_bavail * disk.f_frsize)
    while free and not probe_space(path, free):
        free = free * 3 // 4
    return free


class Reserve:
    """Space that is kept for acknowledging events when the disk is full.

    A file beside the queue's, of `size` bytes or, on a small disk, a fifth of the free space.
    """

    def __init__(self, path: str, size: int) -> None:
        self._path = f"{path}-reserve"
        self.size = free_bytes(path, size * 5) // 5
        self._fd = open_private(self._path)
        self.size = max(self.size, os.fstat(self._fd).st_size)
        self.is_held = False

    def take(self) -> bool:
        """Allocate the space; False if that isn't possible."""
        if self.is_held:
            return True
        try:
            os.posix_fallocate(self._fd, 0, max(self.size, 1))
            self.is_held = True
        except OSError:
            self.release()
        return self.is_held

    def take_with(self, more: int) -> bool:
        """Allocate the space; False if that isn't possible, or no `more` bytes remain free."""
        return self.take() and probe_space(self._path, more)

    def release(self) -> None:
        """Free the space, for the queue to use."""
        self.is_held = False
        try:
            os.ftruncate(self._fd, 0)
        # The disk is failing; the next write reports it.
        except OSError:
            pass

    def close(self) -> None:
        os.close(self._fd)
