"""Events on their way to the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import hiredis

from ...runtime.clock import monotonic
from ..durable.group_commit import merged
from ..durable.rows import to_row
from ..entry import Batch, Refusal
from .scripts import PUT

CONFIRM_TIMEOUT = 5.0
"""Seconds until a put that the engine hasn't confirmed is refused."""

REPLICAS_TIMEOUT = 4.0
"""Seconds to wait for replicas."""

Argument = bytes | str | int
BY_SHA, BY_TEXT = ("EVALSHA", PUT.sha), ("EVAL", PUT.text)
Done = Callable[[Refusal | None], object]


class Replicas(NamedTuple):
    """needed: how many replicas must have a put; on_disk: whether on their disks."""

    needed: int = 0
    on_disk: bool = False

    def command(self) -> tuple[Argument, ...]:
        """What waits for them; () without any."""
        if not self.needed:
            return ()
        timeout = int(REPLICAS_TIMEOUT * 1000)
        if self.on_disk:
            # Not on the primary's: with `everysec`, that would be a second.
            return ("WAITAOF", 0, self.needed, timeout)
        return ("WAIT", self.needed, timeout)

    def confirmed(self, answer: object) -> int:
        """How many have it, as the answer to this command says."""
        found = answer[1] if isinstance(answer, list) else answer
        assert isinstance(found, int)
        return found


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
    """A put that has no answer yet.

    head: the first arguments of the script PUT; units: puts that share an entry, or several; tails:
    the arguments for each of them.
    """

    def __init__(
        self, head: list[Argument], units: list[list[Put]], tails: list[list[Argument]]
    ) -> None:
        self.head = head
        self.units = units
        self.tails = tails
        self.outcome: bytes | None = None
        """What the engine answered, while replicas are waited for."""

    def arguments(self) -> list[Argument]:
        """All arguments."""
        return [*self.head, *(argument for tail in self.tails for argument in tail)]

    @property
    def is_trial(self) -> bool:
        """Whether it stores nothing, but shows whether the engine can."""
        return not self.units

    def puts(self) -> Iterator[Put]:
        return chain.from_iterable(self.units)


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


def flight_of(puts: Sequence[Put], number: int, remembered: float, size: int) -> Flight:
    """Puts on their way, under a number that the engine remembers for so many seconds; size: the
    most events that may wait."""
    units = units_of(puts)
    tails: list[list[Argument]] = []
    for unit in units:
        rows = [to_row(batch, 0) for batch in merged(unit)]
        tail: list[Argument] = [len(rows), sum(row.events for row in rows)]
        for row in rows:
            tail += [row.events, row.source, row.peers or "", row.lines]
        tails.append(tail)
    return Flight([number, int(remembered * 1000), size], units, tails)


def put_command(how: tuple[str, str], keys: Sequence[str], arguments: Sequence[Argument]) -> bytes:
    """The command that runs the script PUT; how: BY_SHA or BY_TEXT."""
    return packed(*how, len(keys), *keys, *arguments)


def packed(*command: Argument) -> bytes:
    """A command as it is sent."""
    data: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]
    return data
