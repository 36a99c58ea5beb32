from __future__ import annotations

import threading
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.runtime.heartbeat import Heartbeat, ShutdownEvent
from daemonkit.supervision.slave import SlaveSpec, split_options


class Plain(Slave):
    def run(self) -> None: ...


class Named(Slave):
    def __init__(self, url: str, timeout: float = 1, every: float = 1) -> None:
        self.arguments = (url, timeout, every)

    def run(self) -> None: ...


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
            "run_slave has no option 'url'; the options are after, backoff, critical, every, "
            "max_restarts, name, restart, timeout, within",
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


def create(spec: SlaveSpec) -> Slave:
    heartbeat = Heartbeat(None, lambda age: None, lambda age: None, lambda: None)
    return spec.create(Daemon("app"), ShutdownEvent(heartbeat), heartbeat)


def test_the_attributes_are_there_before_init_runs() -> None:
    class Looks(Plain):
        def __init__(self) -> None:
            self.seen = (self.name, self.master.name, self.logger.name, self.shutdown.is_set())

    slave = create(SlaveSpec.make(Looks, "slave", {"name": "looks"}))

    assert isinstance(slave, Looks)
    assert slave.seen == ("looks", "app", "app.looks", False)


def test_a_slave_is_created_with_its_arguments() -> None:
    slave = create(SlaveSpec.make(Named, "run_slave", {}, ("u",), {"timeout": 3}))

    assert isinstance(slave, Named)
    assert slave.arguments == ("u", 3, 1)


def test_a_function_gets_the_slave_if_it_takes_one() -> None:
    assert create(SlaveSpec.make(lambda slave: slave, "slave", {"name": "a"})).run().name == "a"
    assert create(SlaveSpec.make(lambda: 5, "slave", {})).run() == 5


def test_sleep_ends_when_the_slave_is_to_stop_even_if_it_replaced_its_event() -> None:
    slave = create(SlaveSpec.make(work, "slave", {}))
    event, slave.shutdown = slave.shutdown, threading.Event()  # type: ignore[assignment]

    assert not slave.sleep(0.001)
    event.set()
    assert slave.sleep(60)


def test_the_status_has_the_name_and_the_start() -> None:
    assert create(SlaveSpec.make(work, "slave", {})).status() == {"name": "work", "started": None}
