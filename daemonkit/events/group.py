"""Group commit: what several threads put at the same time becomes few batches in one commit."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence

from ..exceptions import QueueFull
from .entry import Batch
from .store import STRIDE, StoredBatch

_BOM = b"\xef\xbb\xbf"


class Put:
    """Events that a thread wants written, and what has become of that.

    turn: released once it is settled, or its thread is to write; None for one that needn't wait.
    """

    __slots__ = ("batch", "count", "is_settled", "refusal", "turn")

    def __init__(self, batch: Batch, count: int) -> None:
        self.batch = batch
        self.count = count
        self.is_settled = False
        self.refusal: QueueFull | None = None
        self.turn: threading.Lock | None = None

    def settle(self, refusal: QueueFull | None) -> None:
        """It was written, or refused."""
        self.refusal = refusal
        self.is_settled = True

    def go_on(self) -> None:
        """Let its thread go on."""
        if self.turn is not None:
            self.turn.release()


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
    if lines.count(b"\n") != len(batch.lines) - 1 or _BOM in lines:
        # In JSON a line break is space, wherever it is; the mark may stand at the beginning.
        lines = b"\n".join(line.removeprefix(_BOM).replace(b"\n", b" ") for line in batch.lines)
    peers = None if batch.peers is None else json.dumps(batch.peers)
    return StoredBatch(id, len(batch.lines), time.time(), batch.source, peers, lines)
