from __future__ import annotations

import threading
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.testing import running

from ..clock import Clock
from .slaves import Recorded, Worker, supervisor_of, wait_for_state


def test_a_slave_is_held_for_each_reason_and_then_can_start() -> None:
    clock = Clock(100)
    supervisor = supervisor_of(
        SlaveSpec.make(Worker, "slave", {"name": "a"}),
        SlaveSpec.make(Worker, "slave", {"name": "b", "after": "a", "bound": True, "group": "g"}),
        clock=clock,
    )
    starter = supervisor._sequencer.starter
    supervisor._graph.is_started = True
    a, b = supervisor.slaves()
    group = b.group
    assert group is not None
    assert [starter.is_held(slave) for slave in (a, b)] == [False, True]
    a.is_alive = a.is_created = a.is_attempted = True
    assert not starter.is_held(b)
    for slave, attribute, value in [
        (b, "is_wanted", False),
        (b, "due", 101),
        (b, "is_down", True),
        (b, "dependents", 1),
        (group, "ending", 1),
        (group, "failed", b),
        (a, "is_stopping", True),
        (a, "is_created", False),
        (supervisor._graph, "is_closed", True),
        (supervisor._graph, "is_started", False),
    ]:
        before = getattr(slave, attribute)
        setattr(slave, attribute, value)
        assert starter.is_held(b), attribute
        setattr(slave, attribute, before)
        assert not starter.is_held(b)


def test_a_slave_waits_for_those_before_it_unless_they_cannot_start_now(
    app: Daemon, slaves: Recorded
) -> None:
    release = threading.Event()

    class Slow(Worker):
        def __init__(self) -> None:
            release.wait(20)
            slaves.log.append("+conn")
            raise OSError("no disk")

    app.add_slave(Slow, name="conn", backoff=3600)
    slaves.add("sub", after="conn", bound=True)
    slaves.add("later", after="sub")
    threading.Timer(0.05, release.set).start()
    with running(app) as client:
        # It waits for `conn`, as `sub` may start then, and not for `sub` itself.
        slaves.wait_for("+conn", "+later")
        wait_for_state(client, "sub", "waiting")


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_run_that_cannot_even_be_made_is_retried(
    app: Daemon, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: Any = threading.Thread.__init__
    refusals = [1, 2]

    def refuse(self: threading.Thread, *args: Any, **options: Any) -> None:
        if options.get("name") == "unlucky" and refusals:
            refusals.pop()
            raise error
        real(self, *args, **options)

    monkeypatch.setattr(threading.Thread, "__init__", refuse)
    app.add_slave(Worker, name="unlucky", backoff=(0.01, 0.01))
    with running(app) as client:
        shown = wait_for_state(client, "unlucky", "running")

    assert shown["restarts"] == 2
    assert client.exit_status == 0


def test_a_thread_that_begins_although_its_start_fails_runs_the_slave_once(
    app: Daemon, slaves: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start
    failures = [MemoryError()]

    def start(self: threading.Thread) -> None:
        real(self)
        if self.name == "work" and failures:
            slaves.wait_for("+work")
            raise failures.pop()

    monkeypatch.setattr(threading.Thread, "start", start)
    slaves.add("work")
    with running(app) as client:
        assert wait_for_state(client, "work", "running")["restarts"] == 0

    assert slaves.log == ["-work"]
    assert failures == []


def test_a_restart_does_not_wait_for_one_that_stays_down(app: Daemon, slaves: Recorded) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True, group="g")
    slaves.add("c", after="sub", group="g")
    with running(app) as client:
        slaves.wait_for("+conn", "+sub", "+c")
        slaves.end("conn")
        slaves.wait_for("-conn", "-sub")
        wait_for_state(client, "sub", "stopped")
        assert app.restart_slave("c")
        slaves.wait_for("-c", "+c")
        wait_for_state(client, "sub", "stopped")
