from __future__ import annotations

import logging
import re
import threading
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.testing import running

from ..events.conditions import until
from .slaves import Recorded, Worker, names, raise_no, slave_status, supervisor_of, wait_for_state


def test_a_slave_after_an_unknown_one_is_refused_at_once() -> None:
    with pytest.raises(RegistrationError, match="^the slave 'Worker' starts after 'x', which"):
        supervisor_of(SlaveSpec.make(Worker, "slave", {"after": "x"}))


def test_each_start_wakes_the_timer_which_learns_when_slaves_are_due() -> None:
    supervisor = supervisor_of(SlaveSpec.make(Worker, "slave", {"timeout": 60}))
    timer = supervisor.timer
    due = timer.functions[0]
    assert due(0) == float("inf")
    supervisor.start()
    assert (timer.wakes > 0, due(0) < float("inf")) == (True, True)
    timer.wakes = 0
    supervisor.add(SlaveSpec.make(Worker, "slave", {"name": "late", "timeout": 1}))
    assert timer.wakes > 0
    supervisor.request_stop()

    assert supervisor.join(30)


def test_once_asked_to_stop_it_adds_no_slave() -> None:
    supervisor = supervisor_of(SlaveSpec.make(Worker, "slave", {}))
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

    supervisor = supervisor_of(SlaveSpec.make(Slow, "slave", {}))
    starter = threading.Thread(target=supervisor.start)
    starter.start()
    assert made.wait(30)
    (slow,) = supervisor.slaves()
    until(lambda: slow.changes._waiters)  # type: ignore[attr-defined]
    unsettled = supervisor.unsettled()
    supervisor.abort_start()
    starter.join(20)
    is_waiting = starter.is_alive()
    release.set()
    supervisor.request_stop()

    assert supervisor.join(30)
    assert (unsettled, is_waiting) == (["Slow"], False)


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
        assert names(client) == ["Worker", "job"]

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
        client.wait_until(lambda: supervisor._graph.is_closed)
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
        shown = names(client)

    assert shown == [*map(str, range(5, 105)), "Worker"]


def test_slaves_can_be_added_when_those_that_others_named_are_no_longer_shown(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    with running(app) as client:
        app.run_slave(lambda: None, name="setup")
        app.run_slave(Worker, after="setup")
        for number in range(4):
            app.run_slave(lambda: None, name=str(number))
            wait_for_state(client, str(number), "finished")
        shown = names(client)

    assert "setup" not in shown
    assert client.exit_status == 0


def test_failed_slaves_do_not_pile_up(app: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    with running(app) as client:
        for number in range(5):
            app.run_slave(raise_no, name=str(number), restart="never", critical=False)
            wait_for_state(client, str(number), "failed")
        # The oldest one is left out a moment after that.
        client.wait_until(lambda: names(client) == ["3", "4"])


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
    before: list[int] = []

    @app.on_event
    def handle(event: Any) -> None:
        app.shutdown.wait()
        supervisor = app._assembly.supervisor
        assert supervisor is not None
        until(lambda: supervisor._graph.is_closed)
        before.append(len(runs))
        threading.Event().wait(0.2)

    @app.slave(backoff=(0, 0), max_restarts=None)
    def loop() -> None:
        runs.append(1)
        app.shutdown.wait()
        raise ValueError("no")

    with running(app) as client:
        client.send_event(0)
        client.wait_until(lambda: runs)

    assert len(runs) - before[0] <= 1
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


def test_a_reused_name_that_would_close_a_cycle_is_refused(app: Daemon) -> None:
    app.add_slave(lambda: None, name="a")
    app.add_slave(Worker, name="b", after="a")
    with running(app, {"master": {"shutdown_timeout": 5}}) as client:
        wait_for_state(client, "a", "finished")
        wait_for_state(client, "b", "running")
        with pytest.raises(RegistrationError) as caught:
            app.run_slave(Worker, name="a", after="b")
        assert slave_status(client, "a")["state"] == "finished"
        app.run_slave(Worker, name="a")
        wait_for_state(client, "a", "running")

    assert str(caught.value) == (
        "circular dependency between slaves: a after b after a; remove one after="
    )
    assert client.exit_status == 0


def test_run_slave_raises_what_init_raised_however_many_threads_call_it(app: Daemon) -> None:
    errors: list[BaseException] = []

    class Bad(Worker):
        def __init__(self) -> None:
            raise OSError("no disk")

    def call(name: str, times: int) -> None:
        for _ in range(times):
            try:
                app.run_slave(Bad, name=name)
            except BaseException as error:
                errors.append(error)

    with running(app) as client:
        callers = [threading.Thread(target=call, args=("conn", 50)) for _ in range(3)]
        callers += [threading.Thread(target=call, args=(f"n{n}", 1)) for n in range(150)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        assert client.status()["slaves"] == []

    texts = {str(error) for error in errors}
    assert texts <= {
        "no disk",
        "a slave named 'conn' already exists; choose another by name=",
    }
    assert len(errors) == 300


def test_a_registered_slave_that_ended_stays_however_many_are_added_later(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.add_slave(lambda: None, name="setup")
    app.add_slave(raise_no, name="broken", restart="never", critical=False)
    with running(app) as client:
        wait_for_state(client, "setup", "finished")
        for number in range(120):
            app.run_slave(lambda: None, name=f"job{number}", after="setup")
        client.wait_until(lambda: len(client.status()["slaves"]) == 102)
        ping = client.get("/ping").text

    assert ping == "the slave broken has failed\n"


def waiting(kind: str, app: Daemon) -> type[Slave]:
    """A slave whose `__init__` adds one that could only start after itself."""

    class Impatient(Worker):
        def __init__(self) -> None:
            if kind == "itself":
                app.run_slave(Worker, name="added", after=self.name)
            elif kind == "owned":
                self.run_slave(Worker, name="added", after=self.name)
            else:
                app.run_slave(Worker, name="added", after="later")

    return Impatient


@pytest.mark.parametrize("kind", ["itself", "owned", "one that starts after it"])
def test_a_slave_that_its_own_start_would_wait_for_is_refused(app: Daemon, kind: str) -> None:
    app.add_slave(waiting(kind, app), name="impatient", restart="never", critical=False)
    app.add_slave(Worker, name="later", after="impatient")
    with running(app) as client:
        shown = wait_for_state(client, "impatient", "failed")
        wait_for_state(client, "later", "running")

    after = "'later'" if kind == "one that starts after it" else "'impatient'"
    assert shown["last_error"]["error"] == (
        f"RegistrationError: the slave 'added' starts after {after}, which waits for it: the "
        "__init__ of 'impatient' adds it; do that in run()"
    )


def test_two_slaves_whose_init_would_wait_for_each_other_are_refused(app: Daemon) -> None:
    both = threading.Barrier(2)

    def make(name: str, other: str) -> None:
        class Impatient(Worker):
            def __init__(self) -> None:
                both.wait(20)
                app.run_slave(Worker, name=f"of {name}", after=other)

        app.add_slave(Impatient, name=name, restart="never", critical=False)

    make("a", "b")
    make("b", "a")
    with running(app) as client:
        states = [slave_status(client, name)["state"] for name in "ab"]

    # The second of them was refused, and then the first could go on.
    assert sorted(states) == ["failed", "running"]


def test_a_slave_may_add_others_in_its_init(app: Daemon) -> None:
    class Parent(Worker):
        def __init__(self) -> None:
            app.run_slave(Worker, name="free")
            self.run_slave(Worker, name="owned", after="free")

    app.add_slave(Parent)
    with running(app) as client:
        for name in ("Parent", "free", "owned"):
            wait_for_state(client, name, "running")


def test_a_handle_stands_for_each_run_of_a_slave(app: Daemon) -> None:
    class Counting(Worker):
        runs = 0

        def __init__(self) -> None:
            Counting.runs += 1
            self.number = Counting.runs

    with running(app):
        handle = app.run_slave(Counting, backoff=(0, 0))
        assert isinstance(handle, Counting)
        first, shutdown = handle.number, handle.shutdown
        app.restart_slave("Counting")
        second = handle.number
        app.stop_slave("Counting")
        app.start_slave("Counting")

        assert [first, second, handle.number] == [1, 2, 3]
        assert (shutdown.is_set(), handle.shutdown.is_set()) == (True, False)


def test_a_slave_that_is_bound_to_one_that_has_ended_is_refused(app: Daemon) -> None:
    with running(app) as client:
        app.run_slave(lambda: None, name="conn")
        wait_for_state(client, "conn", "finished")
        with pytest.raises(RegistrationError) as caught:
            app.run_slave(Worker, after="conn", bound=True)

    assert str(caught.value) == (
        "the slave 'Worker' is bound to 'conn', which is finished; start that first"
    )


def test_a_slave_that_cannot_start_yet_is_added_without_a_handle(app: Daemon) -> None:
    app.add_slave(raise_no, name="conn", backoff=3600)
    with running(app) as client:
        wait_for_state(client, "conn", "backing off")
        assert app.run_slave(Worker, after="conn", bound=True) is None
        assert slave_status(client, "Worker")["state"] == "waiting"
        app.restart_slave("conn", 0)


def test_what_a_slave_owns_stops_with_that_run_and_delays_its_restart(
    app: Daemon, slaves: Recorded
) -> None:
    released = slaves.hold("two")
    app.add_slave(slaves.parent("parent", "one", "two"), name="parent", backoff=(0, 0))
    with running(app) as client:
        slaves.wait_for("+parent", "+one", "+two")
        slaves.fail("one")
        slaves.wait_for("-one", "+one")
        assert slave_status(client, "one")["owner"] == "parent"
        slaves.fail("parent")
        slaves.wait_for("-parent", "-one")
        assert slave_status(client, "parent")["state"] == "backing off"
        released.set()
        slaves.wait_for("-two", "+parent", "+one", "+two")
        slaves.end("parent")
        client.wait_until(lambda: sorted(slaves.log) == ["-one", "-parent", "-two"])
        wait_for_state(client, "one", "stopped")
        with pytest.raises(RegistrationError) as caught:
            app.start_slave("one")

    assert str(caught.value) == "the slave 'one' was added by run_slave and has ended; add it again"
    assert client.exit_status == 0


def test_what_a_slave_owns_stops_with_it_by_name_and_with_the_daemon(
    app: Daemon, slaves: Recorded
) -> None:
    app.add_slave(slaves.parent("parent", "one"), name="parent")
    with running(app) as client:
        slaves.wait_for("+parent", "+one")
        assert app.restart_slave("parent")
        client.wait_until(lambda: sorted(slaves.log) == ["+one", "+parent", "-one", "-parent"])
        slaves.log.clear()

    assert sorted(slaves.log) == ["-one", "-parent"]
    assert client.exit_status == 0


def test_a_run_that_is_to_stop_or_has_ended_starts_no_slaves(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    parents: list[Slave] = []
    errors: list[str] = []

    @app.slave
    def parent(slave: Slave) -> None:
        parents.append(slave)
        slave.shutdown.wait()
        slave.run_slave(Worker, name="late")

    with running(app) as client:
        wait_for_state(client, "parent", "running")
        app.stop_slave("parent")
        with pytest.raises(RegistrationError) as caught:
            parents[0].run_slave(Worker, name="late")
        errors.append(str(caught.value))
        shown = slave_status(client, "parent")

    assert errors == ["the slave parent is stopping: late is not started"]
    # It was about to start one when it was stopped: not a failure.
    assert (shown["state"], shown["last_error"]) == ("stopped", None)


def test_the_tree_is_shown(app: Daemon) -> None:
    app.add_slave(Worker, name="conn")
    app.add_slave(Worker, name="sub", after=["conn"], bound=True, group="g")
    with running(app) as client:
        keys = ("owner", "bound_to", "group")
        shown = [[slave[key] for key in keys] for slave in client.status()["slaves"]]

    assert shown == [[None, [], None], [None, ["conn"], "g"]]


def test_a_handler_of_the_log_that_raises_hides_no_stall_of_another_slave(app: Daemon) -> None:
    class Full(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())
            if "is stalled" in messages[-1]:
                raise OSError("no space left on device")

    messages: list[str] = []
    release = threading.Event()
    for number in range(3):
        app.add_slave(lambda: release.wait(20), name=f"s{number}", timeout=0.1)
    app.logger.addHandler(handler := Full())
    try:
        with running(app) as client:
            client.wait_until(
                lambda: sum("is stalled" in message for message in list(messages)) == 3
            )
            release.set()
    finally:
        app.logger.removeHandler(handler)


def test_one_that_waits_to_be_added_learns_that_its_owner_has_ended(
    app: Daemon, slaves: Recorded
) -> None:
    release = threading.Event()
    returned: list[Any] = []

    class Slow(Worker):
        def __init__(self) -> None:
            release.wait(20)

    def add(parent: Slave) -> None:
        returned.append(parent.run_slave(Worker, name="child", after="slow"))

    base: Any = slaves.work("parent")

    class Parent(base):  # type: ignore[misc]
        def run(self) -> None:
            threading.Thread(target=add, args=(self,)).start()
            super().run()

    with running(app) as client:
        adder = threading.Thread(target=lambda: app.run_slave(Slow, name="slow"))
        adder.start()
        client.wait_until(lambda: slave_status(client, "slow")["state"] == "starting")
        app.run_slave(Parent, name="parent")
        client.wait_until(lambda: len(client.status()["slaves"]) == 3)
        slaves.end("parent")
        client.wait_until(lambda: returned == [None])
        release.set()
        adder.join()


@pytest.mark.parametrize("owned", [False, True])
def test_a_slave_that_adds_another_one_while_it_is_to_stop_can_stop(
    app: Daemon, slaves: Recorded, owned: bool
) -> None:
    """What it adds waits for a restart that waits for its own end."""
    failed = threading.Event()
    returned: list[Any] = []

    def helper(slave: Slave) -> None:
        if not returned:
            failed.wait(20)
            client.wait_until(lambda: slave_status(client, "member")["state"] == "backing off")
            returned.append(app.run_slave(Worker, name="added", after="member"))
        slave.shutdown.wait()

    base: Any = slaves.work("conn")

    class Conn(base):  # type: ignore[misc]
        def run(self) -> None:
            if owned:
                self.run_slave(helper, name="helper")
            super().run()

    app.add_slave(Conn, name="conn", group="g", backoff=(0, 0))
    slaves.add("member", after="conn", group="g")
    if not owned:
        app.add_slave(helper, name="helper", after="conn", bound=True)
    with running(app) as client:
        client.wait_until(lambda: slave_status(client, "helper")["state"] == "running")
        slaves.fail("member")
        failed.set()
        for name in ("conn", "member", "helper", "added"):
            wait_for_state(client, name, "running")

    assert len(returned) == 1


def test_what_is_due_and_who_is_woken_is_noted_once() -> None:
    supervisor = supervisor_of(SlaveSpec.make(raise_no, "slave", {"backoff": (60, 60)}))
    (slave,) = supervisor.slaves()
    supervisor.start()
    until(lambda: slave.state == "backing off")
    with supervisor._graph.changing():
        for _ in range(100):
            supervisor._starter.consider(slave)

    assert len(supervisor._starter._dues._heap) == 1
    wakers = [
        threading.Thread(target=lambda: [supervisor.wake(slave) for _ in range(2000)])
        for _ in range(4)
    ]
    for waker in wakers:
        waker.start()
    while any(waker.is_alive() for waker in wakers):
        supervisor.timer.functions[0](0)
    assert len(supervisor._visits._heap) <= 1
    supervisor.request_stop()
    assert supervisor.join(20)
