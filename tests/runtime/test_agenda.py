from __future__ import annotations

import math

from daemonkit.runtime.agenda import Agenda


def test_items_are_taken_in_order_when_they_are_due() -> None:
    agenda: Agenda[str] = Agenda()
    assert (agenda.next, list(agenda.take(100))) == (math.inf, [])
    assert [agenda.note(item, at) for item, at in (("b", 2), ("a", 1), ("c", 3))] == [True] * 3

    assert agenda.next == 1
    assert list(agenda.take(2)) == ["a", "b"]
    assert (list(agenda.take(2)), agenda.next) == ([], 3)


def test_an_item_is_noted_once_for_the_earliest_time() -> None:
    agenda: Agenda[str] = Agenda()
    noted = [agenda.note("a", at) for at in (5, 7, 5, 3, math.inf)]

    assert noted == [True, False, False, True, False]
    assert list(agenda.take(3)) == ["a"]
    assert agenda.note("a", 6)
    assert list(agenda.take(5)) == []
    assert list(agenda.take(10)) == ["a"]
    assert agenda.next == math.inf


def test_an_item_that_is_noted_again_while_it_is_taken_comes_at_that_time() -> None:
    agenda: Agenda[str] = Agenda()
    agenda.note("a", 1)
    taken = []
    for item in agenda.take(1):
        taken.append(item)
        agenda.note(item, 2)

    assert (taken, agenda.next) == (["a"], 2)


def test_items_need_not_be_comparable() -> None:
    agenda: Agenda[object] = Agenda()
    items = {object(), object()}
    for item in items:
        agenda.note(item, 1)

    assert set(agenda.take(1)) == items
