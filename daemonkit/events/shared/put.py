"""Events on their way to the engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...runtime.clock import monotonic
from ..entry import Batch, Refusal

CONFIRM_TIMEOUT = 5.0
"""Seconds until a put that the engine hasn't confirmed is refused."""

Argument = bytes | str | int
Done = Callable[[Refusal | None], object]


class Put:
    """Events to be put; deadline: monotonic seconds."""

    __slots__ = ("batch", "count", "deadline", "done", "is_alone", "size")

    def __init__(self, batch: Batch, done: Done) -> None:
        self.batch = batch
        self.count = len(batch.events)
        self.size = sum(map(len, batch.lines))
        self.done: Done | None = done
        self.deadline = monotonic() + CONFIRM_TIMEOUT
        self.is_alone = False
        """Whether it is put apart from others, for which there was no room together."""

    def settle(self, refusal: Refusal | None) -> None:
        """Report the outcome, once."""
        done, self.done = self.done, None
        if done is not None:
            done(refusal)


class Flight:
    """A put that has no answer yet; units: puts that share an entry, or several."""

    def __init__(self, arguments: list[Argument], units: list[list[Put]]) -> None:
        self.arguments = arguments
        self.units = units
        self.outcome: bytes | None = None
        """What the engine answered, while replicas are waited for."""

    def puts(self) -> list[Put]:
        return [put for unit in self.units for put in unit]


def units_of(puts: Sequence[Put]) -> list[list[Put]]:
    """Puts that are put together, or not at all."""
    units: list[list[Put]] = []
    for put in puts:
        last = units[-1][-1] if units else None
        if last is None or put.is_alone or last.is_alone:
            units.append([put])
        else:
            units[-1].append(put)
    return units
