from __future__ import annotations

import pytest

from daemonkit import RegistrationError
from daemonkit.supervision.dependencies import Dependencies


def test_the_stop_order_yields_a_slave_once_those_that_depend_on_it_are_done() -> None:
    order = Dependencies({"a": [], "b": ["a"], "c": ["a", "b"], "d": []}).stop_order()
    order.prepare()

    assert set(order.get_ready()) == {"c", "d"}
    order.done("d")
    assert order.get_ready() == ()
    order.done("c")
    assert order.get_ready() == ("b",)
    order.done("b")
    assert order.get_ready() == ("a",)


def test_the_depth_is_the_length_of_the_longest_chain() -> None:
    after = {f"s{n}": [f"s{m}" for m in range(n)] for n in range(200)}
    dependencies = Dependencies(after)

    assert [dependencies.depth(name) for name in ("s0", "s1", "s199")] == [0, 1, 199]


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"a": ["a"]}, "circular dependency between slaves: a after a; remove one after="),
        (
            {"a": ["b"], "b": ["a"]},
            "circular dependency between slaves: a after b after a; remove one after=",
        ),
        (
            {"a": ["poler"], "poller": []},
            "the slave 'a' starts after 'poler', which does not exist; did you mean 'poller'?",
        ),
        ({"a": ["x"]}, "the slave 'a' starts after 'x', which does not exist"),
    ],
)
def test_wrong_dependencies_are_refused(after: dict[str, list[str]], message: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        Dependencies(after)

    assert str(caught.value) == message
