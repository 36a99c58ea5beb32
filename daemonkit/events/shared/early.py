"""What was put before the start, until the engine has it."""

from __future__ import annotations

from collections import deque
from functools import partial

from ..entry import Batch, Refusal
from .puts import Puts


class EarlyPuts:
    """Events whose putters don't wait for the engine; unconfirmed: how many it doesn't have."""

    def __init__(self, puts: Puts) -> None:
        self._puts = puts
        self._refused: deque[Batch] = deque()
        self.unconfirmed = 0

    def add(self, batch: Batch) -> None:
        """Put events, once there is a loop and the engine is there; raises BatchTooLarge."""
        count = len(batch.events)
        if (too_large := self._puts.never_fits(count)) is not None:
            raise too_large
        self.unconfirmed += count
        self._put(batch)

    def put_again(self) -> None:
        """Put again what was refused: the queue may have been full."""
        # The loop adds to it meanwhile.
        for _ in range(len(self._refused)):
            self._put(self._refused.popleft())

    def _put(self, batch: Batch) -> None:
        self._puts.add(batch, partial(self._settled, batch), patient=True)

    def _settled(self, batch: Batch, refusal: Refusal | None) -> None:
        if refusal is None:
            self.unconfirmed -= len(batch.events)
        else:
            self._refused.append(batch)
