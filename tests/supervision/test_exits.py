from __future__ import annotations

import gc
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest

from daemonkit import Daemon, Done, RegistrationError, Slave
from daemonkit.supervision.exits import Exits
from daemonkit.testing import running

from .slaves import Recorded, Worker, finishing, names, raise_no, slave_status, wait_for_state


def done(where: str) -> Any:
    """A slave that raises Done there."""

    class Job(Slave):
        def __init__(self) -> None:
            if where == "init":
                raise Done("nothing to do")

        def run(self) -> None:
            raise Done("imported 400 rows")

    async def job() -> None:
        raise Done("imported 400 rows")

    return job if where == "async" else Job


@pytest.mark.parametrize("restart", ["on-failure", "always", "never"])
@pytest.mark.parametrize("every", [None, 0.01])
@pytest.mark.parametrize("where", ["init", "run", "async"])
@pytest.mark.parametrize("late", [False, True])
def test_a_slave_that_is_done_is_finished_whatever_its_policy(
    app: Daemon, restart: Any, every: Any, where: str, late: bool, caplog: Any
) -> None:
    caplog.set_level("INFO")
    options: Any = {"name": "job", "restart": restart, "every": every}
    if not late:
        app.add_slave(done(where), **options)
    with running(app) as client:
        if late:
            handle = app.run_slave(done(where), **options)
            assert (handle is None) == (where == "init")
        shown = wait_for_state(client, "job", "finished")
        assert client.get("/ping").text == "OK\n"

    assert (shown["restarts"], shown["last_error"]) == (0, None)
    text = "nothing to do" if where == "init" else "imported 400 rows"
    assert [m for m in caplog.messages if "The slave job" in m] == [
        f"The slave job is done: {text}"
    ]
    assert client.exit_status == 0


@pytest.mark.parametrize("ends", [lambda: None, lambda: (_ for _ in ()).throw(Done)])
def test_a_slave_that_ends_the_daemon_stops_it_in_order_with_0(
    app: Daemon, slaves: Recorded, ends: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stopped: list[str] = []
    app.on_stop(lambda: stopped.append("hook"))

    @app.slave(ends_daemon=True)
    def job() -> None:
        started.wait(20)
        slaves.log.append("job")
        if ends is not None:
            next(iter([ends()]))

    started = threading.Event()
    slaves.add("other")
    with running(app) as client:
        client.wait_until(lambda: "+other" in slaves.log)
        started.set()
        assert app.shutdown.wait(20)

    assert (slaves.log[-2:], stopped) == (["job", "-other"], ["hook"])
    assert "Stopping: the slave job is done" in caplog.messages
    assert client.exit_status == 0


def test_a_job_that_ends_the_daemon_before_it_has_started_is_enough(app: Daemon) -> None:
    app.add_slave(lambda: None, name="job", ends_daemon=True)

    assert app.serve() == 0


def test_a_slave_that_ends_the_daemon_does_not_when_it_is_stopped_or_fails(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("job", ends_daemon=True)
    slaves.add("other", after="job", ends_daemon=True, max_restarts=0, critical=False)
    with running(app) as client:
        slaves.wait_for("+job", "+other")
        slaves.fail("job")
        slaves.wait_for("-job", "+job")
        app.stop_slave("job")
        slaves.fail("other")
        wait_for_state(client, "other", "failed")
        assert not app.shutdown.is_set()


def test_of_a_finished_slave_that_was_added_later_only_what_is_shown_is_kept(app: Daemon) -> None:
    class Data:
        pass

    class Job(Slave):
        def __init__(self, data: Data) -> None:
            self.data = data

        def run(self) -> None:
            self.logger.info("working")

        def status(self) -> Any:
            return {**super().status(), "rows": 400, "data": self.data}

    def job(data: Data) -> Any:
        def work(slave: Slave) -> None:
            slave.logger.info(f"working on {data}")

        return work

    async def main() -> None: ...

    def async_job(data: Data) -> Any:
        async def work(slave: Slave) -> None:
            slave.logger.info(f"working on {data}")
            await main()

        return work

    alive: list[weakref.ref[Data]] = []
    gc.disable()
    try:
        with running(app) as client:
            for number in range(4):
                for kind, make in (("class", None), ("function", job), ("async", async_job)):
                    data = Data()
                    alive.append(weakref.ref(data))
                    name = f"{kind}{number}"
                    if make is None:
                        app.run_slave(Job, data, name=name)
                    else:
                        app.run_slave(make(data), name=name)
                    del data
                    wait_for_state(client, name, "finished")
            client.wait_until(lambda: not any(ref() for ref in alive))
            shown = slave_status(client, "class3")
    finally:
        gc.enable()

    assert (shown["rows"], shown["state"]) == (400, "finished")
    assert "Data object" in shown["data"]
    assert shown["started"] is not None
    assert shown["last_heartbeat"] is not None


def test_a_handle_keeps_what_its_user_wants_to_see(app: Daemon) -> None:
    class Job(Slave):
        result = 0

        def run(self) -> None:
            self.result = 42

    with running(app) as client:
        job = app.run_slave(Job)
        assert isinstance(job, Job)
        wait_for_state(client, "Job", "finished")
        client.wait_until(lambda: job.result == 42)


def test_a_status_that_fails_at_the_end_shows_its_error(app: Daemon) -> None:
    class Job(Worker):
        def run(self) -> None: ...

        def status(self) -> Any:
            raise ValueError("no status")

    with running(app) as client:
        app.run_slave(Job)
        wait_for_state(client, "Job", "finished")
        client.wait_until(lambda: "error" in slave_status(client, "Job"))
        assert slave_status(client, "Job")["error"] == "ValueError: no status"


def test_only_the_last_slaves_that_were_added_later_are_kept(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    app.add_slave(lambda: None, name="setup")
    app.add_slave(raise_no, name="broken", restart="never", critical=False)
    with running(app) as client:
        wait_for_state(client, "setup", "finished")
        wait_for_state(client, "broken", "failed")
        for number in range(5):
            app.run_slave(lambda: None, name=f"job{number}", after="setup")
            wait_for_state(client, f"job{number}", "finished")
            app.run_slave(raise_no, name=f"bad{number}", restart="never", critical=False)
            wait_for_state(client, f"bad{number}", "failed")
            app.run_slave(Worker, name=f"worker{number}")
            app.stop_slave(f"worker{number}")
        client.wait_until(lambda: len(client.status()["slaves"]) == 8)
        shown = set(names(client))
        problems = client.status()["problems"]

    assert shown == {
        *("setup", "broken", "job3", "job4", "bad3", "bad4", "worker3", "worker4"),
    }
    assert "the slave broken has failed" in problems


def test_what_is_bound_to_a_job_that_was_added_later_does_not_pile_up(
    app: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    with running(app) as client:
        for number in range(5):
            release = threading.Event()
            app.run_slave(lambda: release.wait(20), name=f"conn{number}")  # noqa: B023
            app.run_slave(Worker, name=f"sub{number}", after=f"conn{number}", bound=True)
            release.set()
            wait_for_state(client, f"conn{number}", "finished")
        client.wait_until(lambda: len(client.status()["slaves"]) == 4)


def test_too_many_restarts_of_all_slaves_together_stop_the_daemon(
    app: Daemon, slaves: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    for name, after in (("a", ()), ("b", "a"), ("c", "b"), ("d", "c")):
        slaves.add(name, after=after, critical=False, group="g" if name in "cd" else None)
    with running(app, {"master": {"max_restarts": 3, "within": "1h"}}) as client:
        slaves.wait_for("+a", "+b", "+c", "+d")
        for name, log in (("a", ["+a"]), ("b", ["+b"]), ("c", ["-d", "+c", "+d"])):
            slaves.fail(name)
            slaves.wait_for(f"-{name}", *log)
        assert app.restart_slave("a")
        slaves.wait_for("-a", "+a")
        slaves.fail("b")
        assert app.shutdown.wait(20)

    assert (
        "The slave b gave up: 3 restarts within 3600 s of all slaves (master.max_restarts) were not enough; the daemon "
        "stops" in caplog.messages
    )
    assert client.exit_status == 1


class FailsOnce(Worker):
    """Fails to be created the first time, once it is told to."""

    runs = 0
    go: threading.Event

    def __init__(self) -> None:
        type(self).runs += 1
        if type(self).runs == 1:
            self.go.wait(20)
            raise OSError("no disk")


@pytest.mark.parametrize("how", ["restart_slave", "group"])
def test_a_slave_that_was_refused_is_not_started_by_a_restart_that_was_under_way(
    app: Daemon, slaves: Recorded, how: str
) -> None:
    class X(FailsOnce):
        go = threading.Event()

    errors: list[BaseException] = []

    def add() -> None:
        try:
            app.run_slave(X, name="x", group="g", backoff=(0, 0))
        except OSError as error:
            errors.append(error)

    slaves.add("member", group="g")
    with running(app) as client:
        slaves.wait_for("+member")
        adder = threading.Thread(target=add)
        adder.start()
        client.wait_until(lambda: X.runs)
        if how == "group":
            slaves.fail("member")
            slaves.wait_for("-member")
        else:
            app.restart_slave("x", timeout=0)
        X.go.set()
        adder.join()
        client.wait_until(lambda: slave_status(client, "member")["state"] == "running")
        shown = names(client)

    assert (shown, len(errors), X.runs) == (["member"], 1, 1)


def test_what_a_refused_slave_owned_is_stopped(app: Daemon, slaves: Recorded) -> None:
    class Parent(Worker):
        def __init__(self) -> None:
            self.run_slave(slaves.work("child"), name="child")
            raise OSError("no disk")

    with running(app):
        for _ in range(2):
            with pytest.raises(OSError, match="no disk"):
                app.run_slave(Parent)
            slaves.wait_for("+child", "-child")


def test_a_slow_status_at_the_end_does_not_touch_what_has_the_name_since_then(
    app: Daemon, slaves: Recorded
) -> None:
    release = threading.Event()

    with running(app) as client:
        app.run_slave(finishing(release, {"old": True}), name="x")
        supervisor = app._assembly.supervisor
        assert supervisor is not None
        old = supervisor.slaves()[0]
        client.wait_until(lambda: old.is_final)
        slaves.add("x")
        slaves.add("sub", after="x", bound=True)
        slaves.wait_for("+x", "+sub")
        release.set()
        assert old.run is not None
        old.run.thread.join(20)
        slaves.fail("sub")
        slaves.wait_for("-sub", "+sub")
        assert "old" not in slave_status(client, "x")


def test_a_group_whose_failed_member_is_added_anew_runs_again(
    app: Daemon, slaves: Recorded
) -> None:
    options: Any = {"group": "g", "max_restarts": 0, "critical": False}
    with running(app) as client:
        slaves.add("a", **options)
        slaves.add("b", **options)
        slaves.wait_for("+a", "+b")
        slaves.fail("a")
        slaves.wait_for("-a", "-b")
        wait_for_state(client, "a", "failed")
        with pytest.raises(RegistrationError, match="^the group 'g' has failed; start 'a' first$"):
            slaves.add("c", **options)
        slaves.add("a", **options)
        slaves.wait_for("+a")
        wait_for_state(client, "a", "running")


def test_an_exception_whose_text_takes_long_holds_up_nothing(app: Daemon) -> None:
    asked, release = threading.Event(), threading.Event()

    class Slow(Exception):
        def __str__(self) -> str:
            asked.set()
            release.wait(20)
            return "slow"

    def fail() -> None:
        raise Slow

    with running(app) as client:
        app.run_slave(fail, name="job", restart="never", critical=False)
        assert asked.wait(20)
        assert client.get("/ping").text == "OK\n"
        assert app.run_slave(Worker) is not None
        release.set()
        assert wait_for_state(client, "job", "failed")["last_error"]["error"] == "Slow: slow"


def test_one_that_could_not_be_created_keeps_those_before_it_waiting_for_those_after_it(
    app: Daemon, slaves: Recorded
) -> None:
    creating, release = threading.Event(), threading.Event()

    class Refused(Worker):
        def __init__(self) -> None:
            creating.set()
            release.wait(20)
            raise ValueError("no")

    def add() -> None:
        with suppress(ValueError):
            app.run_slave(Refused, name="b", after="a", bound=True)

    slaves.add("a")
    held = slaves.hold("c")
    with running(app) as client:
        supervisor = app._assembly.supervisor
        a = supervisor.slaves()[0]
        app.run_slave(lambda: None, name="b")
        wait_for_state(client, "b", "finished")
        slaves.add("c", after="b")
        adder = threading.Thread(target=add)
        adder.start()
        assert creating.wait(20)
        app.stop_slave("c", timeout=0)
        app.stop_slave("a", timeout=0)
        release.set()
        adder.join()
        shown = [(slave.name, slave.is_asked) for slave in supervisor.slaves()]
        held.set()
        slaves.wait_for("+a", "+c", "-c", "-a")

    assert shown == [("a", False), ("c", True)]
    assert a.blockers == 0


def test_a_restart_that_is_over_before_it_is_logged_has_its_own_number(
    app: Daemon, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, is_restarted = Exits._log, threading.Event()
    runs: list[Slave] = []

    def log_late(*arguments: Any) -> None:
        assert is_restarted.wait(20)
        log(*arguments)

    monkeypatch.setattr(Exits, "_log", log_late)

    @app.slave(backoff=(0, 0))
    def bad(slave: Slave) -> None:
        runs.append(slave)
        if len(runs) == 1:
            raise ValueError("no")
        is_restarted.set()
        slave.shutdown.wait()

    with running(app) as client:
        client.wait_until(lambda: any("The slave bad failed" in line for line in caplog.messages))

    assert "The slave bad failed; restart 1 in 0 s" in caplog.messages
