"""Group commit: concurrent puts become few batches in one commit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from ...exceptions import Unavailable
from ..entry import Batch
from .rows import STRIDE

GATHERING = 0.0003
"""The most seconds to wait for the threads that shared the last commit."""


class Pending:
    """Events that a thread is putting, and the result once that is settled.

    turn: released when the put is settled or its thread is to write; None for the first writer.
    """

    __slots__ = ("batch", "count", "is_settled", "refusal", "turn")

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch = batch
        self.count = count
        self.is_settled = False
        self.refusal: Unavailable | None = None
        self.turn: threading.Lock | None = None

    def resume(self) -> None:
        """Let its thread continue."""
        if self.turn is not None:
            self.turn.release()


class OwnedLock:
    """A lock that knows its owner."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread holds it."""
        return self._owner == threading.get_ident()

    def acquire(self, timeout: float = -1) -> bool:
        """Acquire it within `timeout` seconds; returns whether that was possible."""
        if not self._lock.acquire(timeout=timeout):
            return False
        self._owner = threading.get_ident()
        return True

    def release(self) -> None:
        self._owner = 0
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class GroupCommit:
    """Concurrent puts share a commit: one thread writes everyone's pending events.

    write: writes and settles pending puts; called with `file_lock` held, and must not raise.
    file_lock: while others hold it, puts gather for the next commit.
    """

    def __init__(self, write: Callable[[Sequence[Pending]], None], file_lock: OwnedLock) -> None:
        self._write = write
        self._file_lock = file_lock
        self.lock = threading.Lock()
        """Held to announce a put, and to check beforehand that there is room."""
        self.announced = 0
        """Events that aren't settled."""
        self.puts: list[Pending] = []
        self._writer: Pending | None = None
        """The put whose thread writes, or is about to."""
        self._last = 1
        """How many puts shared the last commit."""
        self._expected = 0
        self._complete = threading.Event()

    def announce(self, batch: Batch, count: int) -> Pending:
        """Add a put to the next commit; the caller holds `lock`, and calls `commit` after that."""
        put = Pending(batch, count)
        self.announced += count
        self.puts.append(put)
        if self._writer is None:
            self._writer = put
        else:
            put.turn = threading.Lock()
            put.turn.acquire()
            if len(self.puts) == self._expected:
                self._complete.set()
        return put

    def commit(self, put: Pending) -> None:
        """Return once the put is settled, by this thread or another one."""
        try:
            if put.turn is not None:
                put.turn.acquire()
            if not put.is_settled:
                self._gather()
                self._write_all()
        finally:
            if not put.is_settled:
                self._withdraw(put)

    def _gather(self) -> None:
        """Give the threads that shared the last commit a moment to join this one."""
        with self.lock:
            if len(self.puts) >= self._last:
                return
            self._expected = self._last
            self._complete.clear()
        self._complete.wait(GATHERING)
        self._expected = 0

    def _write_all(self) -> None:
        puts: list[Pending] = []
        try:
            with self._file_lock:
                with self.lock:
                    puts, self.puts = self.puts, []
                self._write(puts)
        finally:
            with self.lock:
                self._last = len(puts)
                self._promote_next()
            for put in puts:
                put.resume()

    def settle(self, puts: Sequence[Pending], refusal: Unavailable | None) -> None:
        """Note that puts were written, or refused; the caller holds `lock`."""
        for put in puts:
            put.refusal, put.is_settled = refusal, True
            self.announced -= put.count

    def _withdraw(self, put: Pending) -> None:
        """Take back a put whose thread was interrupted, by KeyboardInterrupt for instance."""
        with self.lock:
            if put in self.puts:
                self.puts.remove(put)
                self.announced -= put.count
            if self._writer is put:
                self._promote_next()

    def _promote_next(self) -> None:
        """Make the thread of the next put the writer."""
        self._writer = self.puts[0] if self.puts else None
        if self._writer is not None:
            self._writer.resume()


class Mergeable(Protocol):
    """Events to be stored, and how many there are."""

    batch: Batch
    count: int


def merged(puts: Sequence[Mergeable]) -> list[Batch]:
    """The same events in the same order, in as few batches of up to STRIDE as possible."""
    batches: list[Batch] = []
    for put in puts:
        batch, last = put.batch, batches[-1] if batches else None
        if put.count > STRIDE:
            batches += [batch.part(n, n + STRIDE) for n in range(0, put.count, STRIDE)]
        elif (
            last is not None
            and last.source == batch.source
            and (last.origins is None) == (batch.origins is None)
            and len(last.events) + put.count <= STRIDE
        ):
            batches[-1] = Batch(
                [*last.events, *batch.events],
                [*last.lines, *batch.lines],
                last.source,
                None if last.origins is None else [*last.origins, *(batch.origins or ())],
            )
        else:
            batches.append(batch)
    return batches
