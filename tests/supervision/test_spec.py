from __future__ import annotations

from typing import Any

import pytest

from daemonkit import RegistrationError, Slave
from daemonkit.supervision.spec import SlaveSpec, split_options

from .slaves import Named, Plain


class Open(Slave):
    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords

    def run(self) -> None: ...


def work() -> None: ...


@pytest.mark.parametrize(
    ("target", "keywords", "options", "arguments"),
    [
        (work, {"every": 5, "timeout": 3}, {"every": 5, "timeout": 3}, {}),
        (Plain, {"timeout": 3}, {"timeout": 3}, {}),
        (Named, {"url": "x", "timeout": 3}, {}, {"url": "x", "timeout": 3}),
        (Named, {"url": "x", "every": 3}, {"every": 3}, {"url": "x"}),
        (Open, {"timeout": 3, "timout": 4}, {"timeout": 3}, {"timout": 4}),
    ],
)
def test_keywords_of_run_slave_are_options_or_arguments(
    target: Any, keywords: dict[str, Any], options: dict[str, Any], arguments: dict[str, Any]
) -> None:
    assert split_options(target, keywords) == (options, arguments)


@pytest.mark.parametrize(
    ("target", "keywords", "message"),
    [
        (work, {"timout": 3}, "run_slave has no option 'timout'; did you mean 'timeout'?"),
        (Plain, {"timout": 3}, "run_slave has no option 'timout'; did you mean 'timeout'?"),
        (Named, {"ulr": "x"}, "run_slave has no option 'ulr'; did you mean 'url'?"),
        (
            work,
            {"url": "x"},
            "run_slave has no option 'url'; the options are after, backoff, bound, critical, "
            "ends_daemon, every, group, max_restarts, name, restart, stop_timeout, timeout, within",
        ),
    ],
)
def test_a_keyword_that_is_neither_option_nor_argument_is_refused(
    target: Any, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(RegistrationError) as caught:
        split_options(target, keywords)

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("backoff", "expected"), [(5, (5, 60)), ((1, 2), (1, 2)), ([1, 2], (1, 2))]
)
def test_the_policy_has_both_waits(backoff: Any, expected: tuple[float, float]) -> None:
    spec = SlaveSpec.make(work, "slave", {"backoff": backoff})

    assert spec.policy.backoff == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": True}, "bound needs after: the slaves that it is bound to"),
        ({"bound": 1, "after": "a"}, "bound must be True or False, not 1 (int)"),
        ({"ends_daemon": None}, "ends_daemon must be True or False, not None (NoneType)"),
        ({"stop_timeout": 0}, "stop_timeout must be a number of seconds > 0, not 0 (int)"),
        ({"group": 5}, "group must be the group's name, not 5 (int)"),
        ({"group": ""}, "group must be the group's name, not '' (str)"),
        (
            {"group": "g", "restart": "never"},
            "a group restarts its members together: restart='never' can't be in one",
        ),
    ],
)
def test_wrong_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        SlaveSpec.make(work, "slave", options)

    assert str(caught.value) == message


def test_a_name_given_twice_counts_once() -> None:
    assert SlaveSpec.make(work, "slave", {"after": ["a", "b", "a"]}).after == ("a", "b")


def test_only_a_bound_slave_is_bound_to_what_it_starts_after() -> None:
    made = [SlaveSpec.make(work, "slave", {"after": "a", "bound": b}) for b in (True, False)]

    assert [spec.bound_to for spec in made] == [("a",), ()]


def test_without_its_work_nothing_of_the_user_s_is_left() -> None:
    spec = SlaveSpec.make(Named, "run_slave", {"name": "n", "group": "g"}, ("u",), {"timeout": 3})
    bare = spec.without_work()

    assert (bare.cls, bare.function, bare.args, bare.kwargs) == (Slave, None, (), {})
    assert (bare.name, bare.group) == ("n", "g")
