"""Waits for many connections at once, at a cost that doesn't grow with the idle ones."""

from __future__ import annotations

import select
from typing import Any

# Their flags have the same values, and only one of them is there everywhere.
_HAS_EPOLL = hasattr(select, "epoll")
READ = select.POLLIN | select.POLLPRI
WRITE = select.POLLOUT


class Poller:
    """What waitress asks of every connection before each wait, it asks only where the answer may
    have changed: `unsettled` holds those. epoll(7) where there is one, else poll(2)."""

    def __init__(self) -> None:
        self.unsettled: set[Any] = set()
        self._poll: Any = select.epoll() if _HAS_EPOLL else select.poll()
        self._flags: dict[int, int] = {}

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; returns descriptors and what can be done with them."""
        self.settle()
        if not _HAS_EPOLL and timeout is not None:
            timeout *= 1000
        ready: list[tuple[int, int]] = self._poll.poll(timeout)
        return ready

    def settle(self) -> None:
        """Ask those that may want something else now."""
        settled = []
        for item in self.unsettled:
            fd = item._fileno
            if fd is None:
                settled.append(item)
                continue
            # Before the flags, or a thread could change them between the two questions.
            if not getattr(item, "unsettled", False):
                settled.append(item)
            flags = (READ if item.readable() else 0) | (
                WRITE if item.writable() and not item.accepting else 0
            )
            before = self._flags.get(fd, 0)
            if flags != before:
                self._change(fd, before, flags)
        self.unsettled.difference_update(settled)

    def forget(self, fd: int) -> None:
        """Wait no more for a descriptor that is about to be closed. (A forked child may keep what
        it stands for open, and then epoll would go on telling of it.)"""
        if self._flags.get(fd):
            self._change(fd, self._flags[fd], 0)

    def close(self) -> None:
        """Close its own descriptor."""
        if _HAS_EPOLL:
            self._poll.close()

    def _change(self, fd: int, before: int, flags: int) -> None:
        if not flags:
            del self._flags[fd]
            self._poll.unregister(fd)
            return
        self._flags[fd] = flags
        if before:
            self._poll.modify(fd, flags)
        else:
            self._poll.register(fd, flags)
