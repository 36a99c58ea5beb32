from __future__ import annotations

import pytest

from daemonkit.supervision.slave_graph import SlaveGraph, shown_names
from daemonkit.supervision.spec import SlaveSpec

from .slaves import Unstarted, Worker, supervisor_of


def spec(name: str, *after: str, bound: bool = False) -> SlaveSpec:
    return SlaveSpec.make(Worker, "slave", {"name": name, "after": after, "bound": bound})


@pytest.fixture
def supervisor() -> Unstarted:
    return supervisor_of(
        spec("a"), spec("b", "a", bound=True), spec("c", "a", "b"), spec("d", "b", bound=True)
    )


def test_it_knows_what_is_next_to_a_slave(supervisor: Unstarted) -> None:
    graph = supervisor._graph
    a, b, c, d = graph.slaves.values()

    assert (graph.earlier(c), graph.later(a)) == ([a, b], [b, c])
    assert (graph.bound_to(b), graph.bound_to(c)) == ([a], [])
    assert graph.with_belonging([a]) == [a, b, d]
    a.children = {c}
    assert set(graph.with_belonging([a])) == {a, b, c, d}


def test_a_name_that_others_start_after_may_be_missing(supervisor: Unstarted) -> None:
    graph = supervisor._graph
    del graph.slaves["b"]

    assert [slave.name for slave in graph.earlier(graph.slaves["c"])] == ["a"]
    assert [slave.name for slave in graph.later(graph.slaves["a"])] == ["c"]


def test_what_may_block_comes_after_the_change_and_hinders_nothing() -> None:
    wakes: list[str] = []
    graph = SlaveGraph(lambda: wakes.append("wake"))

    def fail() -> None:
        raise MemoryError

    with graph.changing():
        graph.afterwards(fail)
        graph.afterwards(lambda: wakes.append("afterwards"))
        graph.wakes = True
        assert wakes == []
    with graph.changing():
        pass

    assert wakes == ["wake", "afterwards"]


def test_many_names_are_cut(supervisor: Unstarted) -> None:
    many = supervisor_of(*(spec(f"s{number}") for number in range(12))).slaves()

    assert shown_names(supervisor.slaves()) == "a, b, c, d"
    assert shown_names(many) == "s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 and 2 more"
