"""Waits for many connections at once, at a cost that doesn't grow with the idle ones."""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

# Their flags have the same values, and only one of them is there everywhere.
_HAS_EPOLL = hasattr(select, "epoll")
READ = select.POLLIN
WRITE = select.POLLOUT


class Pollable(Protocol):
    """What waits for a descriptor: a connection, the listening socket, the trigger."""

    _fileno: int | None
    accepting: bool

    def readable(self) -> bool: ...

    def writable(self) -> bool: ...

    def handle_error(self) -> None: ...


class Poller:
    """What waitress asks of every connection before each wait, it asks only where the answer may
    have changed. epoll(7) where there is one, else poll(2)."""

    def __init__(self) -> None:
        self.asked: set[Pollable] = set()
        """Those that are asked before this wait."""
        self.is_woken = False
        """Whether the loop is about to ask again, and needn't be woken for that."""
        self.last: Pollable | None = None
        """What is asked before each wait, after all others: what it answers depends on them."""
        self._again: deque[Pollable] = deque()
        self._poll: Any = select.epoll() if _HAS_EPOLL else select.poll()
        self._flags: dict[int, int] = {}

    def look_again(self, item: Pollable) -> None:
        """Have `item` asked what it waits for; any thread may call this, and wake the loop then:
        whatever changes the answer has to lead here."""
        self._again.append(item)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; returns descriptors and what can be done with them."""
        self._settle()
        if not _HAS_EPOLL and timeout is not None:
            timeout *= 1000
        ready: list[tuple[int, int]] = self._poll.poll(timeout)
        return ready

    def _settle(self) -> None:
        # Before the first is asked: what changes from now on wakes the loop again.
        self.is_woken = False
        self.asked = set()
        while self._again:
            self.asked.add(self._again.popleft())
        last = self.last
        if last is not None:
            self.asked.discard(last)
        for item in (*self.asked, last) if last is not None else tuple(self.asked):
            try:
                self._ask(item)
            except Exception:
                item.handle_error()

    def _ask(self, item: Pollable) -> None:
        fd = item._fileno
        if fd is None:
            return
        flags = (READ if item.readable() else 0) | (
            WRITE if item.writable() and not item.accepting else 0
        )
        before = self._flags.get(fd, 0)
        if flags == before:
            return
        if not flags:
            self.forget(fd)
            return
        if before:
            self._poll.modify(fd, flags)
        else:
            self._poll.register(fd, flags)
        self._flags[fd] = flags

    def forget(self, fd: int) -> None:
        """Wait no more for a descriptor that is about to be closed. (A forked child may keep what
        it stands for open, and then epoll would go on telling of it.)"""
        if self._flags.pop(fd, 0):
            with suppress(OSError):
                self._poll.unregister(fd)

    def close(self) -> None:
        """Close its own descriptor."""
        if _HAS_EPOLL:
            self._poll.close()
