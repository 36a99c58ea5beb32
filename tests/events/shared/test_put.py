from __future__ import annotations

from typing import Any

from daemonkit import QueueFull
from daemonkit.events.shared.put import Flight, Put, units_of

from .conftest import batch


def test_the_outcome_is_reported_once() -> None:
    outcomes: list[Any] = []
    put = Put(batch(1, 2), outcomes.append)
    put.settle(None)
    put.settle(QueueFull("full"))

    assert outcomes == [None]
    assert (put.count, put.size) == (2, 2)


def test_puts_share_an_entry_unless_one_is_to_be_alone() -> None:
    one, two, three, four = (Put(batch(n), print) for n in range(4))
    assert units_of([]) == []
    assert units_of([one, two, three]) == [[one, two, three]]
    two.is_alone = True
    assert units_of([one, two, three, four]) == [[one], [two], [three, four]]
    flight = Flight([1], [[one], [two, three]], [[2], [3, 4]])
    assert list(flight.puts()) == [one, two, three]
    assert flight.arguments() == [1, 2, 3, 4]
