"""Group commit: what several threads put at the same time becomes few batches in one commit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence

from ...exceptions import Unavailable
from ..codec import BOM
from ..entry import Batch
from .store import STRIDE, StoredBatch

GATHERING = 0.0003
"""Seconds to wait at most for those who shared the last commit."""


class Put:
    """Events that a thread wants written, and what has become of that.

    turn: released once it is settled, or its thread is to write; None for one that needn't wait.
    """

    __slots__ = ("batch", "count", "is_settled", "refusal", "turn")

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch = batch
        self.count = count
        self.is_settled = False
        self.refusal: Unavailable | None = None
        self.turn: threading.Lock | None = None

    def go_on(self) -> None:
        """Let its thread go on."""
        if self.turn is not None:
            self.turn.release()


class OwnedLock:
    """A lock that knows whose it is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0

    @property
    def is_mine(self) -> bool:
        """Whether the calling thread has it."""
        return self._owner == threading.get_ident()

    def acquire(self, timeout: float = -1) -> bool:
        """Take it, waiting at most `timeout` seconds; whether that was possible."""
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
    """Threads that put at the same time share a commit: one writes for all that have come.

    write: called with puts by the thread that holds `writing`; settles each; it must not raise.
    writing: others may hold it as well, and who comes meanwhile shares the next commit.
    """

    def __init__(self, write: Callable[[Sequence[Put]], None], writing: OwnedLock) -> None:
        self._write = write
        self._writing = writing
        self.lock = threading.Lock()
        """Held while somebody announces, so that what is announced can be counted before."""
        self.announced = 0
        """Events that are not yet settled."""
        self.puts: list[Put] = []
        self._writer: Put | None = None
        """Of which the thread writes now, or is about to."""
        self._last = 1
        """How many shared the last commit."""
        self._expected = 0
        self._complete = threading.Event()

    def announce(self, batch: Batch, count: int) -> Put:
        """Have events written with the next commit; for a thread that holds `lock`, and commits
        afterwards."""
        put = Put(batch, count)
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

    def commit(self, put: Put) -> None:
        """Return when it is settled."""
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
        """Give those who shared the last commit a moment to share this one as well."""
        with self.lock:
            if len(self.puts) >= self._last:
                return
            self._expected = self._last
            self._complete.clear()
        self._complete.wait(GATHERING)
        self._expected = 0

    def _write_all(self) -> None:
        puts: list[Put] = []
        try:
            with self._writing:
                with self.lock:
                    puts, self.puts = self.puts, []
                self._write(puts)
        finally:
            with self.lock:
                self._last = len(puts)
                self._hand_on()
            for put in puts:
                put.go_on()

    def settle(self, puts: Sequence[Put], refusal: Unavailable | None) -> None:
        """They were written, or refused; for a thread that holds `lock`."""
        for put in puts:
            put.refusal, put.is_settled = refusal, True
            self.announced -= put.count

    def _withdraw(self, put: Put) -> None:
        """An exception in its thread, KeyboardInterrupt for instance, has kept a put from being
        written."""
        with self.lock:
            if put in self.puts:
                self.puts.remove(put)
                self.announced -= put.count
            if self._writer is put:
                self._hand_on()

    def _hand_on(self) -> None:
        """Have the thread of the next put write, if there is one."""
        self._writer = self.puts[0] if self.puts else None
        if self._writer is not None:
            self._writer.go_on()


def merged(puts: Sequence[Put]) -> list[Batch]:
    """The same events in the same order, in as few batches as can be of at most STRIDE each."""
    batches: list[Batch] = []
    for put in puts:
        batch, last = put.batch, batches[-1] if batches else None
        if put.count > STRIDE:
            batches += [batch.part(n, n + STRIDE) for n in range(0, put.count, STRIDE)]
        elif (
            last is not None
            and last.source == batch.source
            and (last.peers is None) == (batch.peers is None)
            and len(last.events) + put.count <= STRIDE
        ):
            batches[-1] = Batch(
                [*last.events, *batch.events],
                [*last.lines, *batch.lines],
                last.source,
                None if last.peers is None else [*last.peers, *(batch.peers or ())],
            )
        else:
            batches.append(batch)
    return batches


def stored(batch: Batch, id: int) -> StoredBatch:
    """A batch in the form it has in the file."""
    lines = b"\n".join(batch.lines)
    if lines.count(b"\n") != len(batch.lines) - 1 or BOM in lines:
        # In JSON a line break is space, wherever it is; the mark may stand at the beginning.
        lines = b"\n".join(line.removeprefix(BOM).replace(b"\n", b" ") for line in batch.lines)
    peers = None if batch.peers is None else json.dumps(batch.peers)
    return StoredBatch(id, len(batch.lines), time.time(), batch.source, peers, lines)
