from __future__ import annotations

import logging
import re
import threading
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.runtime.timer import Timer
from daemonkit.supervision.slave import SlaveSpec
from daemonkit.supervision.supervisor import Supervisor
from daemonkit.testing import running

from ..events.conditions import until
from .slaves import Worker, raise_no, slave_status, wait_for_state


class CountingTimer(Timer):
    """A timer that isn't started, and counts how often it is woken."""

    wakes = 0

    def wake(self) -> None:
        self.wakes += 1


def supervisor_of(*specs: SlaveSpec) -> tuple[Supervisor, CountingTimer]:
    timer = CountingTimer(logging.getLogger("app"))
    nothing: Any = lambda *_: None  # noqa: E731
    return Supervisor(specs, Daemon("app"), timer, gave_up=nothing, changed=nothing), timer


def test_a_slave_after_an_unknown_one_is_refused_at_once() -> None:
    with pytest.raises(RegistrationError, match="^the slave 'Worker' starts after 'x', which"):
        supervisor_of(SlaveSpec.make(Worker, "slave", {"after": "x"}))


def test_each_start_wakes_the_timer_which_learns_when_slaves_are_due() -> None:
    supervisor, timer = supervisor_of(SlaveSpec.make(Worker, "slave", {"timeout": 60}))
    due = timer._functions[0]
    assert due(0) == float("inf")
    supervisor.start()
    assert (timer.wakes, due(0) < float("inf")) == (1, True)
    supervisor.add(SlaveSpec.make(Worker, "slave", {"name": "late"}))
    assert timer.wakes == 2
    supervisor.request_stop()

    assert supervisor.join(30)


def test_once_asked_to_stop_it_adds_no_slave() -> None:
    supervisor, _ = supervisor_of(SlaveSpec.make(Worker, "slave", {}))
    supervisor.start()
    supervisor.request_stop()
    with pytest.raises(RegistrationError, match="^the daemon is stopping: late is not started$"):
        supervisor.add(SlaveSpec.make(Worker, "slave", {"name": "late"}))

    assert supervisor.join(30)


def test_an_aborted_start_waits_no_longer_for_what_is_being_created() -> None:
    made, release = threading.Event(), threading.Event()

    class Slow(Worker):
        def __init__(self) -> None:
            made.set()
            release.wait(30)

    supervisor, timer = supervisor_of(SlaveSpec.make(Slow, "slave", {}))
    starter = threading.Thread(target=supervisor.start)
    starter.start()
    assert made.wait(30)
    until(lambda: supervisor._changes._waiters)  # type: ignore[attr-defined]
    unsettled = supervisor.unsettled()
    supervisor.abort_start()
    starter.join(20)
    is_waiting = starter.is_alive()
    release.set()
    supervisor.request_stop()

    assert supervisor.join(30)
    assert (unsettled, is_waiting) == (["Slow"], False)
    # It waited for a change: it did not look again and again.
    assert timer.wakes == 1


def test_a_function_slave_gets_the_slave_and_runs_on_a_thread_of_its_name(app: Daemon) -> None:
    seen: list[tuple[str, str, Any]] = []

    @app.slave
    def poller(slave: Slave) -> None:
        seen.append((threading.current_thread().name, slave.logger.name, slave.master))
        slave.shutdown.wait()

    with running(app) as client:
        shown = wait_for_state(client, "poller", "running")

    assert seen == [("poller", "app.poller", app)]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", shown["started"])
    assert client.exit_status == 0


def test_run_slave_starts_a_subclass_with_arguments(app: Daemon) -> None:
    app.run_slave(Worker, name="before")

    with running(app) as client:
        worker = app.run_slave(Worker, "http://x", limit=5)
        assert isinstance(worker, Worker)
        shown = wait_for_state(client, "Worker", "running")
        before = wait_for_state(client, "before", "running")

    assert shown["arguments"] == ["http://x", 5]
    assert before["arguments"] == ["none", 0]


def test_a_name_in_use_is_refused_and_a_finished_one_may_be_used_again(app: Daemon) -> None:
    with running(app) as client:
        app.run_slave(Worker)
        with pytest.raises(RegistrationError, match="^a slave named 'Worker' already exists"):
            app.run_slave(Worker)
        app.run_slave(lambda: None, name="job")
        wait_for_state(client, "job", "finished")
        app.run_slave(lambda slave: slave.shutdown.wait(), name="job")
        wait_for_state(client, "job", "running")
        assert [slave["name"] for slave in client.status()["slaves"]] == ["Worker", "job"]

    with pytest.raises(RegistrationError, match="^the daemon is stopping: late is not started$"):
        app.run_slave(lambda: None, name="late")


class Broken(Worker):
    def __init__(self) -> None:
        raise OSError("no disk")


def test_a_slave_that_cannot_be_created_is_retried_and_the_others_start(app: Daemon) -> None:
    app.add_slave(Broken, after="Worker")
    app.add_slave(Worker, after="dependent", name="last")
    app.add_slave(Worker, after="Broken", name="dependent")
    app.add_slave(Worker)

    with running(app) as client:
        shown = wait_for_state(client, "Broken", "backing off")
        wait_for_state(client, "last", "running")

    assert shown["last_error"]["error"] == "OSError: no disk"
    assert shown["last_error"]["place"].endswith(" in __init__")


def test_run_slave_raises_what_init_raises_and_does_not_retry(
    app: Daemon,
) -> None:
    with running(app) as client:
        with pytest.raises(OSError, match="no disk"):
            app.run_slave(Broken, name="again")
        assert client.status()["slaves"] == []
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


def test_a_slave_that_does_not_stop_is_named_with_its_stack(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    @app.slave
    def stubborn() -> None:
        release.wait(30)

    with running(app, {"master": {"shutdown_timeout": 0.5}}) as client:
        client.wait_until(lambda: slave_status(client, "stubborn")["state"] == "running")
    release.set()

    assert client.exit_status == 4
    report = next(m for m in caplog.messages if m.startswith("The thread stubborn (slaves)"))
    assert "release.wait(30)" in report
    # On a busy machine, an idle thread may be late, too.
    assert "Stopped by the deadline of 0.5 s; still running: stubborn" in caplog.text


def test_a_slave_that_is_being_created_when_stopping_begins_does_not_run(app: Daemon) -> None:
    made, release = threading.Event(), threading.Event()
    ran: list[str] = []
    errors: list[str] = []

    def start_slow() -> None:
        try:
            app.run_slave(Slow)
        except RegistrationError as error:
            errors.append(str(error))

    class Slow(Worker):
        def __init__(self) -> None:
            made.set()
            release.wait(10)

        def run(self) -> None:
            ran.append("run")

    with running(app) as client:
        starter = threading.Thread(target=start_slow)
        starter.start()
        made.wait(10)
        app.stop()
        assert app._assembly.parts is not None
        supervisor = app._assembly.parts.supervisor
        client.wait_until(lambda: supervisor._stopping)
        release.set()
        starter.join()

    assert ran == []
    assert errors == ["the daemon is stopping: Slow is not started"]
    assert client.exit_status == 0


def test_run_slave_waits_for_those_it_is_to_start_after(app: Daemon) -> None:
    order: list[str] = []
    release = threading.Event()

    class Slow(Worker):
        def __init__(self) -> None:
            release.wait(10)
            order.append("Slow")

    def add_after() -> None:
        app.run_slave(lambda: order.append("after"), name="after", after="Slow")

    with running(app) as client:
        threads = []
        for number, add in enumerate([lambda: app.run_slave(Slow), add_after], 1):
            threads.append(threading.Thread(target=add))
            threads[-1].start()
            client.wait_until(lambda: len(client.status()["slaves"]) == number)  # noqa: B023
        release.set()
        for thread in threads:
            thread.join()
        with pytest.raises(RegistrationError, match="'x' starts after 'Slo', which does not exist"):
            app.run_slave(lambda: None, name="x", after="Slo")
        client.wait_until(lambda: len(order) == 2)

    assert order == ["Slow", "after"]


def test_only_the_last_hundred_finished_slaves_are_kept(app: Daemon) -> None:
    with running(app) as client:
        for number in range(105):
            app.run_slave(lambda: None, name=str(number))
            wait_for_state(client, str(number), "finished")
        app.run_slave(Worker)
        names = [slave["name"] for slave in client.status()["slaves"]]

    assert names == [*map(str, range(5, 105)), "Worker"]


def test_slaves_can_be_added_when_those_that_others_named_are_no_longer_shown(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.supervision.supervisor.KEPT", 2)
    with running(app) as client:
        app.run_slave(lambda: None, name="setup")
        app.run_slave(Worker, after="setup")
        for number in range(4):
            app.run_slave(lambda: None, name=str(number))
            wait_for_state(client, str(number), "finished")
        names = [slave["name"] for slave in client.status()["slaves"]]

    assert "setup" not in names
    assert client.exit_status == 0


def test_failed_slaves_do_not_pile_up(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.supervision.supervisor.KEPT", 2)
    with running(app) as client:
        for number in range(5):
            app.run_slave(raise_no, name=str(number), restart="never", critical=False)
            wait_for_state(client, str(number), "failed")
        names = [slave["name"] for slave in client.status()["slaves"]]

    assert names == ["2", "3", "4"]


def test_a_failure_while_stopping_does_not_change_the_exit_status(app: Daemon) -> None:
    failed = threading.Event()
    app.on_event(lambda event: failed.wait(10))

    @app.slave(restart="never")
    def feeder(slave: Slave) -> None:
        app.shutdown.wait()
        try:
            while True:
                app.put_event(1)
                slave.shutdown.wait(0.01)
        finally:
            failed.set()

    with running(app) as client:
        client.send_event(0)

    assert client.exit_status == 0
    assert failed.is_set()


def test_a_slave_that_gives_up_while_draining_does_not_change_the_exit_status(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    @app.slave(restart="never")
    def feeder() -> None:
        app.shutdown.wait()
        raise ValueError("no")

    with running(app, {"master": {"drain_delay": 0.3}}) as client:
        pass

    assert (
        "The slave feeder gave up: it is not restarted (restart is 'never'); the daemon stops"
        in caplog.messages
    )
    assert client.exit_status == 0


def test_while_stopping_nothing_is_started_again(app: Daemon) -> None:
    runs: list[int] = []
    app.on_event(lambda event: threading.Event().wait(0.5))

    @app.slave(backoff=(0, 0), max_restarts=None)
    def loop() -> None:
        runs.append(1)
        app.shutdown.wait()
        raise ValueError("no")

    with running(app) as client:
        client.send_event(0)
        client.wait_until(lambda: runs)

    assert len(runs) < 5
    assert client.exit_status == 0


def test_a_slave_added_while_the_daemon_starts_is_started(app: Daemon) -> None:
    real, late = app.flask.seal, []

    def seal() -> None:
        assert app.run_slave(Worker, name="late") is None
        late.append("added")
        real()

    app.flask.seal = seal  # type: ignore[method-assign]
    with running(app) as client:
        wait_for_state(client, "late", "running")

    assert late == ["added"]


def stopping(name: str, order: list[str], release: threading.Event | None = None) -> Any:
    """A slave that records when it is asked to stop, and then waits for `release`, if given."""

    def work(slave: Slave) -> None:
        slave.shutdown.wait()
        order.append(name)
        if release is not None:
            release.wait(10)

    return work


def test_slaves_stop_in_the_reverse_order_of_their_dependencies(app: Daemon) -> None:
    order: list[str] = []
    for name, after in (("a", ()), ("b", ("a",)), ("c", ("b",))):
        app.add_slave(stopping(name, order), name=name, after=after)

    with running(app) as client:
        wait_for_state(client, "c", "running")

    assert order == ["c", "b", "a"]


def test_a_slave_that_does_not_stop_leaves_time_to_those_it_depends_on(app: Daemon) -> None:
    order: list[str] = []
    release = threading.Event()
    app.add_slave(stopping("a", order), name="a")
    app.add_slave(stopping("b", order, release), name="b", after="a")

    with running(app, {"master": {"shutdown_timeout": 1}}) as client:
        wait_for_state(client, "b", "running")
    release.set()

    assert order == ["b", "a"]
    assert client.exit_status == 4
