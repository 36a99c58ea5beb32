from __future__ import annotations

import math

import pytest

from daemonkit.events.shared import backlog
from daemonkit.events.shared.backlog import Backlog
from daemonkit.events.shared.put import Put

from .conftest import batch


def put(*events: str, deadline: float = math.inf) -> Put:
    made = Put(batch(*events), lambda refusal: None)
    made.deadline = deadline
    return made


def test_they_are_taken_in_their_order_a_bounded_number_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog, "MAX_TOGETHER", 3)
    waiting = Backlog()
    puts = [put("a", "b"), put("c"), put("d"), put(*"efghi"), put("j")]
    for each in puts:
        waiting.add(each)

    assert waiting.take() == puts[:2]
    assert waiting.take() == puts[2:3]
    assert waiting.take() == puts[3:4], "one is taken in any case"
    waiting.put_back(puts[:2])
    assert waiting.take_all() == [*puts[:2], puts[4]]
    assert not waiting


def test_their_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MAX_UNSENT", 10)
    waiting, five = Backlog(), put("abc")
    assert not waiting.is_full(put("12345678"))
    waiting.add(five)
    assert (waiting.is_full(five), waiting.is_full(put("1234"))) == (False, True)
    for empty in (waiting.take, waiting.take_all, lambda: waiting.take_late(math.inf)):
        waiting.add(five)
        empty()
        assert not waiting.is_full(put("12345678"))


def test_those_that_are_late_are_taken_out() -> None:
    waiting = Backlog()
    patient, late, later = put("a"), put("b", deadline=1.0), put("c", deadline=2.0)
    for each in (patient, late, later):
        waiting.add(each)

    assert waiting.next_deadline(iter(())) == 1.0
    assert waiting.next_deadline(iter([patient, put("d", deadline=0.5)])) == 0.5
    assert waiting.take_late(1.0) == [late]
    assert waiting.next_deadline(iter([late])) == 1.0
    late.settle(None)
    assert waiting.next_deadline(iter([late])) == 2.0
    assert waiting.take_late(2.0) == [later]
    assert waiting.next_deadline(iter(())) == math.inf
    assert waiting.take() == [patient]
