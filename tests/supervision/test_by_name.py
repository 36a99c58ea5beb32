from __future__ import annotations

import gc
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest

from daemonkit import Daemon, Done, RegistrationError, Slave
from daemonkit.testing import running

from .slaves import Recorded, Worker, finishing, names, raise_no, slave_status, wait_for_state


def test_a_slave_is_stopped_started_and_restarted_by_name(app: Daemon, slaves: Recorded) -> None:
    slaves.add("work", max_restarts=0)
    with running(app) as client:
        slaves.wait_for("+work")
        assert app.restart_slave("work")
        slaves.wait_for("-work", "+work")
        assert app.start_slave("work")
        assert app.stop_slave("work")
        slaves.wait_for("-work")
        assert slave_status(client, "work")["state"] == "stopped"
        assert client.get("/ping").text == "OK\n"
        assert app.stop_slave("work")
        assert app.start_slave("work")
        slaves.wait_for("+work")
        shown = slave_status(client, "work")

    assert (shown["state"], shown["restarts"]) == ("running", 0)
    assert [restart["reason"] for restart in shown["last_restarts"]] == [
        "restart_slave",
        "start_slave",
    ]
    assert client.exit_status == 0


def test_what_is_bound_to_a_slave_stops_and_starts_with_it(app: Daemon, slaves: Recorded) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True)
    slaves.add("later", after="sub")
    with running(app) as client:
        slaves.wait_for("+conn", "+sub", "+later")
        assert app.stop_slave("conn")
        slaves.wait_for("-sub", "-conn")
        assert slave_status(client, "sub")["state"] == "stopped"
        with pytest.raises(RegistrationError) as caught:
            app.start_slave("sub")
        assert app.start_slave("conn")
        slaves.wait_for("+conn", "+sub")
        assert app.restart_slave("conn")
        slaves.wait_for("-sub", "-conn", "+conn", "+sub")
        assert app.stop_slave("sub")
        slaves.wait_for("-sub")
        assert app.restart_slave("conn")
        slaves.wait_for("-conn", "+conn")
        assert slave_status(client, "sub")["state"] == "stopped"

    assert str(caught.value) == (
        "the slave 'sub' is bound to 'conn', which is stopped; start that first"
    )


def test_a_restart_by_name_is_one_of_the_whole_group_but_a_stop_is_not(
    app: Daemon, slaves: Recorded
) -> None:
    for name, after in (("a", ()), ("b", "a"), ("c", "b")):
        slaves.add(name, after=after, group="link")
    with running(app):
        slaves.wait_for("+a", "+b", "+c")
        assert app.restart_slave("b")
        slaves.wait_for("-c", "-b", "-a", "+a", "+b", "+c")
        assert app.stop_slave("b")
        slaves.wait_for("-b")
        slaves.fail("c")
        slaves.wait_for("-c", "-a", "+a", "+c")
        assert app.start_slave("b")
        slaves.wait_for("+b")


def test_a_slave_that_is_backing_off_starts_at_once(app: Daemon, slaves: Recorded) -> None:
    slaves.add("work", backoff=3600)
    with running(app) as client:
        slaves.wait_for("+work")
        for restart in (
            app.restart_slave,
            lambda name: app.stop_slave(name) and app.start_slave(name),
        ):
            slaves.fail("work")
            wait_for_state(client, "work", "backing off")
            assert restart("work")
            slaves.wait_for("-work", "+work")


def test_a_slave_that_failed_for_good_starts_over_with_all_its_restarts(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("work", max_restarts=1, critical=False)
    with running(app) as client:
        for _ in range(2):
            slaves.wait_for("+work")
            slaves.fail("work")
            slaves.wait_for("-work", "+work")
            slaves.fail("work")
            slaves.wait_for("-work")
            wait_for_state(client, "work", "failed")
            assert app.start_slave("work")


def test_a_slave_that_cannot_be_created_is_retried_after_start_slave(app: Daemon) -> None:
    errors: list[OSError] = []

    class Conn(Worker):
        def __init__(self) -> None:
            if errors:
                raise errors.pop()

    app.add_slave(Conn, name="conn", backoff=(0.05, 0.05))
    with running(app) as client:
        app.stop_slave("conn")
        errors.append(OSError("no disk"))
        assert app.start_slave("conn") is False
        shown = wait_for_state(client, "conn", "running")

    assert shown["restarts"] == 1


def test_it_says_whether_a_slave_has_stopped_in_time(app: Daemon, slaves: Recorded) -> None:
    released = slaves.hold("work")
    slaves.add("work")
    with running(app) as client:
        slaves.wait_for("+work")
        assert app.stop_slave("work", timeout=0.01) is False
        assert slave_status(client, "work")["state"] == "stopping"
        with pytest.raises(RegistrationError, match="^the slave 'work' is stopping; stop it first"):
            app.forget_slave("work")
        assert app.restart_slave("work", timeout=0.01) is False
        released.set()
        slaves.wait_for("-work", "+work")


def test_a_slave_may_stop_and_restart_itself_and_what_owns_it(app: Daemon) -> None:
    results: list[bool] = []
    runs: list[int] = []
    turn = threading.Event()

    def child() -> None:
        results.append(app.restart_slave("parent"))

    @app.slave
    def parent(slave: Slave) -> None:
        runs.append(1)
        if len(runs) == 1:
            slave.run_slave(child)
        if len(runs) == 2:
            results.append(app.restart_slave("parent"))
        if len(runs) == 3:
            results.append(app.stop_slave("parent"))
            turn.set()
        slave.shutdown.wait()

    with running(app) as client:
        assert turn.wait(20)
        wait_for_state(client, "parent", "stopped")

    assert results == [False] * 3
    assert len(runs) == 3


def test_a_forgotten_slave_is_shown_no_more_and_its_name_is_free(app: Daemon) -> None:
    app.add_slave(raise_no, name="job", restart="never", critical=False)
    app.add_slave(Worker)
    with running(app) as client:
        wait_for_state(client, "job", "failed")
        assert client.get("/ping").status_code == 503
        app.forget_slave("job")
        assert client.get("/ping").text == "OK\n"
        assert names(client) == ["Worker"]
        with pytest.raises(RegistrationError, match="there is no slave 'job'"):
            app.forget_slave("job")
        app.run_slave(Worker, name="job", after="Worker")
        wait_for_state(client, "job", "running")


def test_a_slave_is_forgotten_once_what_belonged_to_it_has_ended(
    app: Daemon, slaves: Recorded
) -> None:
    released = slaves.hold("sub")
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True)
    with running(app) as client:
        slaves.wait_for("+conn", "+sub")
        slaves.end("conn")
        wait_for_state(client, "sub", "stopping")
        with pytest.raises(RegistrationError) as caught:
            app.forget_slave("conn")
        released.set()
        wait_for_state(client, "sub", "stopped")
        app.forget_slave("conn")
        assert slave_status(client, "sub")["state"] == "stopped"
        app.forget_slave("sub")
        assert client.status()["slaves"] == []

    assert str(caught.value) == (
        "the slave 'sub' belongs to 'conn' and is stopping; stop that first"
    )


@pytest.mark.parametrize("late", [False, True])
def test_a_stop_by_name_of_one_that_has_failed_clears_the_health_check(
    app: Daemon, late: bool
) -> None:
    options: Any = {"name": "job", "restart": "never", "critical": False}
    if not late:
        app.add_slave(raise_no, **options)
    with running(app) as client:
        if late:
            app.run_slave(raise_no, **options)
        wait_for_state(client, "job", "failed")
        assert app.stop_slave("job")
        assert client.get("/ping").text == "OK\n"
        assert slave_status(client, "job")["state"] == "stopped"
        app.start_slave("job")
        wait_for_state(client, "job", "failed")


def test_a_restart_does_not_wait_for_the_back_off_of_one_that_cannot_be_created(
    app: Daemon,
) -> None:
    runs: list[int] = []

    class Conn(Worker):
        def __init__(self) -> None:
            runs.append(1)
            if len(runs) > 1:
                raise OSError("no disk")

    app.add_slave(Conn, backoff=3600)
    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        wait_for_state(client, "Conn", "running")
        assert app.restart_slave("Conn") is False
        wait_for_state(client, "Conn", "backing off")


def test_a_group_that_each_run_starts_anew_has_all_its_restarts_again(
    app: Daemon, slaves: Recorded
) -> None:
    base: Any = slaves.work("parent")

    class Parent(base):  # type: ignore[misc]
        def run(self) -> None:
            options: Any = {"max_restarts": 1, "critical": False, "backoff": (0, 0)}
            self.run_slave(slaves.work("a"), name="a", group="g", **options)
            self.run_slave(slaves.work("b"), name="b", group="g", after="a", **options)
            super().run()

    app.add_slave(Parent, name="parent", backoff=(0, 0))
    with running(app) as client:
        for run in range(3):
            slaves.wait_for("+parent", "+a", "+b")
            assert slave_status(client, "a")["restarts"] == 0
            slaves.fail("a")
            slaves.wait_for("-a", "-b", "+a", "+b")
            if run < 2:
                slaves.fail("parent")
                client.wait_until(lambda: slaves.log[:1] == ["-parent"] and len(slaves.log) > 5)
                del slaves.log[:3]


def test_a_stopped_slave_of_a_registered_name_starts_the_others_in_order_again(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("a")
    slaves.add("b", after="a")
    with running(app):
        slaves.wait_for("+a", "+b")
        app.stop_slave("a")
        slaves.wait_for("-a")
        app.restart_slave("b")
        slaves.wait_for("-b", "+b")


CALLS: list[Any] = [
    lambda app, name: app.stop_slave(name),
    lambda app, name: app.start_slave(name),
    lambda app, name: app.restart_slave(name),
    lambda app, name: app.forget_slave(name),
]


@pytest.mark.parametrize("call", CALLS, ids=["stop", "start", "restart", "forget"])
def test_each_refuses_an_unknown_name_and_a_daemon_that_does_not_run(
    app: Daemon, call: Any
) -> None:
    messages: list[str] = []

    def refused(name: str = "poller") -> None:
        with pytest.raises(RegistrationError) as caught:
            call(app, name)
        messages.append(str(caught.value))

    app.add_slave(Worker, name="poller")
    app.on_start(refused)
    refused()
    with running(app):
        refused("poler")
    refused()

    not_started = "no slaves run yet: the daemon has not started"
    assert messages == [
        not_started,
        not_started,
        "there is no slave 'poler'; did you mean 'poller'?",
        "the daemon is stopping, and all slaves with it",
    ]


def test_a_finished_slave_that_was_added_later_cannot_be_started_again(app: Daemon) -> None:
    with running(app) as client:
        app.run_slave(lambda: None, name="job")
        wait_for_state(client, "job", "finished")
        for call in (app.start_slave, app.restart_slave):
            with pytest.raises(RegistrationError) as caught:
                call("job")
            assert str(caught.value) == (
                "the slave 'job' was added by run_slave and has ended; add it again"
            )


def test_a_slave_that_was_added_later_can_be_started_again_unless_it_finished(
    app: Daemon,
) -> None:
    with running(app) as client:
        worker = app.run_slave(Worker, "u")
        assert isinstance(worker, Worker)
        app.stop_slave("Worker")
        assert slave_status(client, "Worker")["arguments"] == ["u", 0]
        app.start_slave("Worker")
        assert slave_status(client, "Worker")["arguments"] == ["u", 0]
        assert not worker.shutdown.is_set()


def test_a_forgotten_slave_does_not_start_with_what_it_was_bound_to(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True, backoff=3600)
    with running(app) as client:
        slaves.wait_for("+conn", "+sub")
        slaves.fail("sub")
        wait_for_state(client, "sub", "backing off")
        slaves.end("conn")
        wait_for_state(client, "conn", "finished")
        app.forget_slave("sub")
        slaves.log.clear()
        assert app.start_slave("conn")
        slaves.wait_for("+conn")
        app.run_slave(Worker, name="sub", after="conn", bound=True)
        wait_for_state(client, "sub", "running")


def test_a_member_may_restart_its_group(app: Daemon) -> None:
    results: list[bool] = []

    @app.slave(group="g")
    def member(slave: Slave) -> None:
        if not results:
            results.append(app.restart_slave("other"))
        slave.shutdown.wait()

    app.add_slave(Worker, name="other", group="g")
    with running(app) as client:
        client.wait_until(lambda: results)
        wait_for_state(client, "member", "running")

    assert results == [False]


def test_a_job_that_was_stopped_by_name_does_not_run_again_with_what_it_is_bound_to(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("conn")
    app.add_slave(lambda: slaves.log.append("job"), name="job", after="conn", bound=True)
    with running(app) as client:
        slaves.wait_for("+conn", "job")
        wait_for_state(client, "job", "finished")
        app.stop_slave("job")
        slaves.fail("conn")
        slaves.wait_for("-conn", "+conn")
        assert slave_status(client, "job")["state"] == "finished"
        assert app.start_slave("job") in (True, False)
        slaves.wait_for("job")


def test_a_restart_does_not_wait_for_a_slave_that_is_done_instead(app: Daemon) -> None:
    @app.slave
    def job(slave: Slave) -> None:
        slave.shutdown.wait()
        raise Done

    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        wait_for_state(client, "job", "running")
        assert app.restart_slave("job") is False
        assert slave_status(client, "job")["state"] == "finished"


def test_slaves_that_were_stopped_in_back_off_do_not_pile_up(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    with running(app) as client:
        for number in range(4):
            app.run_slave(raise_no, name=f"job{number}", backoff=3600)
            wait_for_state(client, f"job{number}", "backing off")
            app.stop_slave(f"job{number}")
        shown = names(client)

    assert shown == ["job2", "job3"]


@pytest.mark.parametrize("call", ["start_slave", "restart_slave", "stop_slave"])
def test_an_init_does_not_wait_for_a_slave_that_waits_for_it(app: Daemon, call: str) -> None:
    results: list[bool] = []

    class First(Worker):
        def __init__(self) -> None:
            results.append(getattr(app, call)("second"))

    app.add_slave(First, name="first")
    app.add_slave(Worker, name="second", after="first")
    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        wait_for_state(client, "first", "running")
        wait_for_state(client, "second", "stopped" if call == "stop_slave" else "running")

    assert results == [call == "stop_slave"]


@pytest.mark.parametrize("timeout", [float("nan"), -1, "1", True])
def test_a_timeout_that_is_not_a_number_of_seconds_is_refused(app: Daemon, timeout: Any) -> None:
    app.add_slave(Worker)
    with running(app) as client:
        for call in (app.stop_slave, app.restart_slave):
            with pytest.raises(RegistrationError, match="^timeout must be a number of seconds, "):
                call("Worker", timeout)
        assert slave_status(client, "Worker")["state"] == "running"


def test_what_is_bound_to_a_slave_that_was_forgotten_cannot_be_started(app: Daemon) -> None:
    app.add_slave(lambda: None, name="conn")
    app.add_slave(Worker, name="sub", after="conn", bound=True)
    with running(app) as client:
        wait_for_state(client, "sub", "stopped")
        app.stop_slave("sub")
        app.forget_slave("conn")
        with pytest.raises(RegistrationError) as caught:
            app.start_slave("sub")

    assert str(caught.value) == (
        "the slave 'sub' is bound to 'conn', which is not there; start that first"
    )


def test_a_slave_that_was_stopped_before_has_all_the_time_of_the_daemon(
    app: Daemon, slaves: Recorded
) -> None:
    released = slaves.hold("slow")
    slaves.add("slow")
    with running(app, {"master": {"shutdown_timeout": 2}}) as client:
        slaves.wait_for("+slow")
        app.stop_slave("slow", timeout=0)
        supervisor = app._assembly.supervisor
        assert supervisor is not None
        client.wait_until(lambda: supervisor._stopper.overdue)
        threading.Timer(0.1, released.set).start()

    assert client.exit_status == 0


def test_a_thread_that_waits_to_add_a_slave_learns_that_it_was_forgotten(
    app: Daemon, slaves: Recorded
) -> None:
    release = threading.Event()
    returned: list[Any] = []

    class Conn(Worker):
        def __init__(self) -> None:
            release.wait(20)

    def add(*args: Any, **options: Any) -> None:
        with suppress(RegistrationError):
            returned.append(app.run_slave(*args, **options))

    with running(app) as client:
        conn = threading.Thread(target=add, args=(Conn,), kwargs={"name": "conn"})
        conn.start()
        client.wait_until(lambda: names(client) == ["conn"])
        options = {"name": "sub", "after": "conn", "bound": True}
        sub = threading.Thread(target=add, args=(Worker,), kwargs=options)
        sub.start()
        client.wait_until(lambda: names(client) == ["conn", "sub"])
        app.stop_slave("conn", timeout=0)
        app.forget_slave("sub")
        client.wait_until(lambda: returned == [None])
        release.set()
        for thread in (conn, sub):
            thread.join()


def test_a_health_hook_does_not_wait_on_the_thread_that_restarts_slaves(
    app: Daemon, slaves: Recorded
) -> None:
    results: list[bool] = []

    @app.on_health_change
    def changed(problems: list[Any]) -> None:
        if problems and not results:
            results.append(app.restart_slave("work"))

    slaves.add("work", backoff=3600)
    with running(app, {"master": {"shutdown_timeout": 600}}):
        slaves.wait_for("+work")
        slaves.fail("work")
        slaves.wait_for("-work", "+work")

    # Whether it runs again already is a matter of luck.
    assert len(results) == 1


def test_a_name_is_free_again_once_what_belonged_to_its_slave_has_ended(
    app: Daemon, slaves: Recorded
) -> None:
    released = slaves.hold("sub")
    with running(app) as client:
        slaves.add("conn")
        slaves.add("sub", after="conn", bound=True)
        slaves.wait_for("+conn", "+sub")
        slaves.end("conn")
        wait_for_state(client, "conn", "finished")
        with pytest.raises(RegistrationError) as caught:
            slaves.add("conn")
        released.set()
        wait_for_state(client, "sub", "stopped")
        slaves.add("conn")

    assert str(caught.value) == ("the slave 'conn' has ended, but what belonged to it hasn't yet")


def test_a_finished_slave_cannot_be_started_even_before_its_memory_is_freed(app: Daemon) -> None:
    release = threading.Event()

    with running(app) as client:
        app.run_slave(finishing(release), name="job")
        wait_for_state(client, "job", "finished")
        with pytest.raises(RegistrationError, match="was added by run_slave and has ended"):
            app.start_slave("job")
        release.set()


@pytest.mark.parametrize("is_failing", [False, True])
def test_of_slaves_that_were_stopped_and_forgotten_nothing_is_kept(
    app: Daemon, slaves: Recorded, is_failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even until their time for stopping, or for the next restart, would be over."""
    # The records that pytest keeps lead to the run, by the traceback.
    monkeypatch.setattr(app.logger, "propagate", False)
    kept: list[weakref.ref[Any]] = []
    with running(app) as client:
        supervisor = app._assembly.supervisor
        for _ in range(5):
            slaves.add("job", backoff=60)
            (job,) = supervisor.slaves()
            kept.append(weakref.ref(job))
            del job
            if is_failing:
                slaves.fail("job")
                wait_for_state(client, "job", "backing off")
            assert app.stop_slave("job")
            app.forget_slave("job")

        def are_freed() -> bool:
            gc.collect()
            return not any(each() for each in kept)

        client.wait_until(are_freed)
