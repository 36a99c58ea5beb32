"""Waits for many connections; idle ones add nothing to the cost of a wait."""

from __future__ import annotations

import select
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from ..runtime.clock import kernel_timeout

# The flags of epoll and poll have the same values, and not every system has epoll.
_HAS_EPOLL = hasattr(select, "epoll")
READ = select.POLLIN
WRITE = select.POLLOUT


class Pollable(Protocol):
    """Owner of a descriptor: a connection, the listening socket, waitress's trigger."""

    _fileno: int | None
    accepting: bool

    def readable(self) -> bool: ...

    def writable(self) -> bool: ...

    def handle_error(self) -> None: ...


class Poller:
    """Waits with epoll(7), or poll(2) where there is none.

    Waitress calls `readable()` and `writable()` of every connection before each wait. This calls
    them only for connections whose answer may have changed.
    """

    def __init__(self) -> None:
        self.rechecked: set[Pollable] = set()
        """The items that are checked before this wait."""
        self.is_woken = False
        """Whether a recheck is already due, so that the loop needs no further wake-up."""
        self.last: Pollable | None = None
        """Checked before each wait, after all others, on which its answer depends."""
        self._pending: deque[Pollable] = deque()
        self._poll: Any = select.epoll() if _HAS_EPOLL else select.poll()
        self._flags: dict[int, int] = {}

    def recheck(self, item: Pollable) -> None:
        """Check before the next wait what `item` waits for.

        Call this, from any thread, after each change to what `readable()` or `writable()` returns;
        if the loop may be waiting, wake it afterwards.
        """
        self._pending.append(item)

    def wait(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait at most `timeout` seconds; return descriptors and their flags."""
        self._check_pending()
        timeout = kernel_timeout(timeout)
        if not _HAS_EPOLL and timeout is not None:
            timeout *= 1000
        ready: list[tuple[int, int]] = self._poll.poll(timeout)
        return ready

    def _check_pending(self) -> None:
        # Before the first check, so that a change during the checks wakes the loop again.
        self.is_woken = False
        self.rechecked = set()
        while self._pending:
            self.rechecked.add(self._pending.popleft())
        last = self.last
        if last is not None:
            self.rechecked.discard(last)
        for item in (*self.rechecked, last) if last is not None else tuple(self.rechecked):
            try:
                self._check(item)
            except Exception:
                item.handle_error()

    def _check(self, item: Pollable) -> None:
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
        """Stop waiting for a descriptor; call this before closing it.

        epoll keeps reporting a closed descriptor if a forked child holds a copy of it.
        """
        if self._flags.pop(fd, 0):
            with suppress(OSError):
                self._poll.unregister(fd)

    def close(self) -> None:
        """Close epoll's descriptor."""
        if _HAS_EPOLL:
            self._poll.close()
