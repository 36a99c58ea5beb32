from __future__ import annotations

import math
import weakref

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


def test_a_dropped_item_is_not_taken_unless_it_is_noted_again() -> None:
    agenda: Agenda[str] = Agenda()
    for item in "abcd":
        agenda.note(item, 1)
    agenda.drop("a")
    agenda.drop("b")
    agenda.drop("b")
    agenda.drop("unknown")
    agenda.note("b", 1)
    agenda.note("d", 0)
    agenda.drop("d")
    agenda.note("d", 2)

    assert sorted(agenda.take(1)) == ["b", "c"]
    assert list(agenda.take(2)) == ["d"]


def test_many_that_are_dropped_are_not_kept() -> None:
    class Item:
        pass

    agenda: Agenda[Item] = Agenda()
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    for _ in range(1000):
        item = Item()
        alive.add(item)
        agenda.note(item, 1)
        agenda.drop(item)
    del item

    assert len(alive) <= 1


def test_items_need_not_be_comparable() -> None:
    agenda: Agenda[object] = Agenda()
    items = {object(), object()}
    for item in items:
        agenda.note(item, 1)

    assert set(agenda.take(1)) == items
