from __future__ import annotations

import pytest

from daemonkit.events.entry import Batch, Refusal
from daemonkit.events.shared.early import EarlyPuts
from daemonkit.events.shared.put import Done
from daemonkit.exceptions import BatchTooLarge, QueueFull

from .conftest import batch


class Puts:
    """Takes puts, to be settled by the test."""

    def __init__(self) -> None:
        self.added: list[tuple[Batch, Done]] = []

    def never_fits(self, count: int) -> BatchTooLarge | None:
        return BatchTooLarge("too large") if count > 2 else None

    def add(self, batch: Batch, done: Done, *, patient: bool) -> None:
        assert patient
        self.added.append((batch, done))

    def settle(self, refusal: Refusal | None) -> None:
        self.added.pop(0)[1](refusal)


def test_what_is_refused_is_put_again_until_it_is_stored() -> None:
    puts = Puts()
    early = EarlyPuts(puts)  # type: ignore[arg-type]
    early.add(batch(1, 2))
    early.add(batch(3))
    puts.settle(None)
    puts.settle(QueueFull("full"))
    assert (early.unconfirmed, puts.added) == (1, [])
    early.put_again()
    early.put_again()
    assert [added[0].events for added in puts.added] == [[3]]
    puts.settle(None)
    early.put_again()
    assert (early.unconfirmed, puts.added) == (0, [])


def test_what_never_fits_is_an_error() -> None:
    with pytest.raises(BatchTooLarge):
        EarlyPuts(Puts()).add(batch(1, 2, 3))  # type: ignore[arg-type]
