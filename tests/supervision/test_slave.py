from __future__ import annotations

import threading

from daemonkit import Daemon, Slave
from daemonkit.runtime.heartbeat import Heartbeat, ShutdownEvent
from daemonkit.supervision.spec import SlaveSpec

from .slaves import Named, Plain


def work() -> None: ...


def create(spec: SlaveSpec) -> Slave:
    heartbeat = Heartbeat(None, lambda age: None, lambda age: None, lambda: None)
    return spec.create(Daemon("app"), ShutdownEvent(heartbeat), heartbeat, lambda *_: None)


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
