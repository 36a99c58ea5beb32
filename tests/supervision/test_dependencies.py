from __future__ import annotations

import pytest

from daemonkit import RegistrationError
from daemonkit.supervision.dependencies import Dependencies


def test_the_stop_order_gives_a_slave_once_those_that_need_it_are_done() -> None:
    order = Dependencies({"a": [], "b": ["a"], "c": ["a", "b"], "d": []}).stop_order()
    order.prepare()

    assert set(order.get_ready()) == {"c", "d"}
    order.done("d")
    assert order.get_ready() == ()
    order.done("c")
    assert order.get_ready() == ("b",)
    order.done("b")
    assert order.get_ready() == ("a",)


def test_the_depth_counts_those_that_stop_one_after_another() -> None:
    after = {f"s{n}": [f"s{m}" for m in range(n)] for n in range(200)}
    dependencies = Dependencies(after)

    assert [dependencies.depth(name) for name in ("s0", "s1", "s199")] == [0, 1, 199]


def test_circles_are_told() -> None:
    with pytest.raises(RegistrationError) as caught:
        Dependencies({"a": ["a"]})

    assert str(caught.value) == (
        "slaves can't start after each other: a after a; leave out one after="
    )
