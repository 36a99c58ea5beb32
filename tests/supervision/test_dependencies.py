from __future__ import annotations

import pytest

from daemonkit import RegistrationError
from daemonkit.supervision.dependencies import Dependencies


def test_it_knows_what_starts_before_and_after_a_slave() -> None:
    dependencies = Dependencies({"a": [], "b": ["a"], "c": ["a", "b"]})

    assert [*dependencies.later("a")] == ["b", "c"]
    assert [*dependencies.earlier("c")] == ["a", "b"]
    assert [*dependencies.later("c"), *dependencies.earlier("a")] == []


def test_the_depth_is_the_length_of_the_longest_chain() -> None:
    after = {f"s{n}": [f"s{m}" for m in range(n)] for n in range(200)}
    depths = Dependencies(after).depths()

    assert [depths[name] for name in ("s0", "s1", "s199")] == [0, 1, 199]


def test_a_name_that_was_removed_is_unknown_but_others_still_start_after_it() -> None:
    dependencies = Dependencies({"a": [], "b": ["a"]})
    dependencies.remove("a")
    with pytest.raises(RegistrationError, match="'c' starts after 'a', which does not exist"):
        dependencies.check("c", ["a"])
    dependencies.put("a", [])

    assert [*dependencies.later("a")] == ["b"]
    assert dependencies.depths() == {"a": 0, "b": 1}


def test_a_reused_name_can_close_a_cycle() -> None:
    dependencies = Dependencies({"a": [], "b": ["a"], "c": ["b"]})
    with pytest.raises(RegistrationError) as caught:
        dependencies.check("a", ["c"])

    assert str(caught.value) == (
        "circular dependency between slaves: a after c after b after a; remove one after="
    )


def test_what_replaced_a_slave_no_longer_starts_after_the_same_ones() -> None:
    dependencies = Dependencies({"a": [], "b": ["a"]})
    dependencies.put("b", [])
    dependencies.check("a", ["b"])

    assert [*dependencies.later("a")] == []


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
