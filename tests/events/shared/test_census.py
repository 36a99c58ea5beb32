from __future__ import annotations

from daemonkit.events.shared.census import Census


def test_a_node_whose_counter_stands_still_is_dead() -> None:
    census = Census(10.0)
    for second in range(9):
        counters = {b"me": b"%d" % second, b"a": b"%d" % second, b"b": b"7"}
        assert census.note(counters, b"me", 100.0 + second) == []

    assert census.note({b"me": b"9", b"a": b"9", b"b": b"7"}, b"me", 109.0) == [b"b"]
    assert census.age(b"b", 109.0) == 9.0
    assert census.age(b"a", 109.0) == 0.0


def test_a_node_that_beats_again_lives() -> None:
    census = Census(10.0)
    for second in range(8):
        census.note({b"a": b"1"}, b"me", second)
    census.note({b"a": b"2"}, b"me", 8.0)

    assert census.note({b"a": b"2"}, b"me", 12.0) == []


def test_one_never_takes_itself_for_dead() -> None:
    census = Census(10.0)
    for second in range(30):
        assert census.note({b"me": b"1"}, b"me", second) == []


def test_what_was_seen_before_a_gap_proves_nothing() -> None:
    """This node was suspended, or the engine was away."""
    census = Census(10.0)
    census.note({b"a": b"1"}, b"me", 100.0)

    assert census.note({b"a": b"1"}, b"me", 200.0) == []
    for second in range(1, 9):
        assert census.note({b"a": b"1"}, b"me", 200.0 + second) == []
    assert census.note({b"a": b"1"}, b"me", 209.0) == [b"a"]


def test_a_node_that_has_left_is_forgotten() -> None:
    census = Census(10.0)
    census.note({b"a": b"1"}, b"me", 0.0)
    census.note({}, b"me", 4.0)
    census.note({b"a": b"1"}, b"me", 8.0)

    assert census.note({b"a": b"1"}, b"me", 12.0) == []
