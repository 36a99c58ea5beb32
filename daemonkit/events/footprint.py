"""How much memory waiting events use, estimated from their JSON text, and since when they wait."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# Bytes on a 64-bit system, measured with sys.getsizeof for Python 3.10 to 3.14. What a value takes
# is charged to a character that introduces it; the first one in a container, to the container.
OBJECT = 272
LIST = 128
FURTHER_VALUE = 64
STRING = 56
EVENT = 64
"""An event's own value, and its place in the queue."""
RECORD = 400
"""What is kept with an event, besides its text, for its circumstances or for retries."""

SMALL = 64 * 1024
"""Bytes of text whose memory is not worth estimating before they are accepted."""
WEIGHED_TOGETHER = 64
"""Events; for one alone, the estimate takes longer than everything else that is done with it."""
GROUP = 1024 * 1024
"""Bytes of memory that are released together."""
AGE_STEP = 0.1
"""Seconds: the accuracy of the oldest event's age."""

_NO_MARKS = bytes(set(range(256)) - set(b'{[,"'))


def footprint(lines: Sequence[bytes]) -> int:
    """Bytes of memory that events take, about, given their JSON texts; rather more than less."""
    text = b"".join(lines)
    marks = text.translate(None, _NO_MARKS)
    # A text with one character beyond Latin-1 takes two or four bytes for each (PEP 393).
    is_plain = text.isascii() and b"\\" not in text
    return (
        len(lines) * EVENT
        + marks.count(b"{") * OBJECT
        + marks.count(b"[") * LIST
        + marks.count(b",") * FURTHER_VALUE
        + marks.count(b'"') * STRING // 2
        + len(text) * (1 if is_plain else 4)
    )


@dataclass(eq=False, repr=False)
class _Group:
    """Events from the one numbered `first`, which arrived at about `when` (monotonic seconds), and
    their memory in bytes."""

    first: int
    when: float
    memory: int


class Arrivals:
    """The waiting events, in groups that arrived together. Not thread-safe."""

    def __init__(self) -> None:
        self.memory = 0
        """Bytes, but for the latest few events."""
        self.over_at = -math.inf
        """When the next event begins a group, in monotonic seconds."""
        self._groups: deque[_Group] = deque()
        self._unweighed: list[bytes] = []
        self._unweighed_size = 0

    def add(self, number: int, lines: Sequence[bytes], now: float, *, keeps_texts: bool) -> None:
        """Note that events were added, the first of them with this number.

        now: monotonic seconds; keeps_texts: whether more than its value is kept of each event.
        """
        if now >= self.over_at:
            self._weigh(keeps_texts)
            self._groups.append(_Group(number, now, 0))
            self.over_at = now + AGE_STEP
        self._unweighed += lines
        self._unweighed_size += sum(map(len, lines))
        if len(self._unweighed) >= WEIGHED_TOGETHER or self._unweighed_size >= SMALL:
            self._weigh(keeps_texts)

    def _weigh(self, keeps_texts: bool) -> None:
        if not self._unweighed:
            return
        memory = footprint(self._unweighed)
        if keeps_texts:
            memory += RECORD * len(self._unweighed) + self._unweighed_size
        self._groups[-1].memory += memory
        self.memory += memory
        if self._groups[-1].memory >= GROUP:
            self.over_at = -math.inf
        self._unweighed, self._unweighed_size = [], 0

    def drop_taken(self, oldest: int, added: int) -> None:
        """Forget the groups before the event numbered `oldest`, the next to be taken.

        added: the number of the next event to arrive.
        """
        groups = self._groups
        while groups:
            end = groups[1].first if len(groups) > 1 else added
            if end > oldest:
                return
            self.memory -= groups.popleft().memory
        self._unweighed, self._unweighed_size, self.over_at = [], 0, -math.inf

    @property
    def oldest(self) -> float | None:
        """When the oldest group arrived, in monotonic seconds; None if there is none."""
        return self._groups[0].when if self._groups else None
