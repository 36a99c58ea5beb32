from __future__ import annotations

import asyncio
import logging
import re
import threading
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.supervision.slave_status import problem_of
from daemonkit.testing import running

from ..events.conditions import until
from .slaves import Supervised, Worker, raise_no, slave_status, wait_for_state


def fail() -> None:
    raise ValueError("no")


def test_a_slave_is_restarted_after_its_back_off() -> None:
    supervised = Supervised(fail, backoff=(4, 4))
    slave = supervised.run()
    due = supervised.at(100)
    assert (slave.state, due, supervised.reports[-1:]) == ("backing off", 104, ["backing off"])
    supervised.at(103.9)
    assert slave.restarts == 0
    supervised.at(104)
    supervised.end()
    assert slave.restarts == 1


@pytest.mark.parametrize(("target", "state"), [(fail, "failed"), (lambda: None, "finished")])
def test_a_slave_that_is_backing_off_is_over_when_asked_to_stop(target: Any, state: str) -> None:
    supervised = Supervised(target, restart="always", backoff=(4, 4))
    slave = supervised.run()
    assert slave.state == "backing off"
    supervised.supervisor.request_stop()
    supervised.at(110)

    assert supervised.at(110) == float("inf")
    assert (slave.state, slave.restarts, slave.is_final) == (state, 0, True)
    assert supervised.supervisor.join(1)


def test_a_return_is_not_a_problem_even_after_an_earlier_failure() -> None:
    errors = [ValueError("no")]

    def work() -> None:
        if errors:
            raise errors.pop()

    supervised = Supervised(work, restart="always", backoff=(4, 4))
    slave = supervised.run()
    assert problem_of(slave) is not None
    supervised.at(104)
    supervised.end()

    assert (slave.state, slave.restarts, problem_of(slave)) == ("backing off", 1, None)


def test_a_slave_that_never_started_is_over_when_asked_to_stop() -> None:
    supervised = Supervised(fail)
    supervised.supervisor.request_stop()
    supervised.supervisor.start()

    assert (supervised.slave.state, supervised.slave.is_final) == ("stopped", True)
    assert supervised.slave.run is None


def test_a_slave_that_is_created_after_the_stop_has_begun_is_not_kept() -> None:
    class Work(Worker):
        def __init__(self) -> None:
            supervised.supervisor.stop_restarting()

        def run(self) -> None:
            pytest.fail("it ran")

    supervised = Supervised(Work)

    assert supervised.run().slave is None
    assert (supervised.slave.state, supervised.slave.last_failure) == ("finished", None)


def test_a_return_after_the_daemon_s_own_shutdown_is_final_and_a_failure_is_not() -> None:
    for target, state in ((lambda: None, "finished"), (fail, "backing off")):
        supervised = Supervised(target, restart="always")
        supervised.master.stop()

        assert supervised.run().state == state
        assert "the slave work gave up" not in supervised.reports


@pytest.mark.parametrize(
    ("restart", "message"),
    [
        ("on-failure", "The slave work returned"),
        ("never", "The slave work returned"),
        ("always", "The slave work returned; restart 1 in 4 s"),
    ],
)
def test_a_return_is_logged_unless_it_was_asked_for(
    restart: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stopping = Supervised(lambda: None, restart=restart, backoff=(4, 4))
    stopping.master.stop()
    stopping.run()
    asked = Supervised(lambda slave: slave.shutdown.wait(), restart=restart)
    asked.supervisor.start()
    asked.supervisor.request_stop()
    assert asked.supervisor.join(10)
    assert caplog.messages == []

    Supervised(lambda: None, restart=restart, backoff=(4, 4)).run()
    assert caplog.messages == [message]


def test_a_failed_call_ends_a_periodic_slave_with_restart_never() -> None:
    supervised = Supervised(fail, every=0.01, restart="never")

    assert supervised.run().state == "failed"
    assert supervised.reports[-2:] == ["the slave work gave up", "failed"]


def refuse(*arguments: object, **options: object) -> str:
    raise MemoryError


def test_without_memory_for_logging_a_slave_is_still_restarted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.supervision.slave_log.SlaveLog._outcome", refuse)
    supervised = Supervised(fail)
    slave = supervised.run()

    assert slave.state == "backing off"
    assert supervised.reports[-1:] == ["backing off"]
    assert supervised.at(100) < float("inf")
    assert problem_of(slave) is not None


def test_without_memory_for_logging_a_failed_call_the_next_one_still_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.supervision.slave_log.SlaveLog._outcome", refuse)
    slave = Supervised(fail, every=1).slave
    slave.call_ended(MemoryError())

    assert slave.state == "backing off"


def test_a_call_that_fails_changes_the_state_once_and_so_does_one_that_succeeds() -> None:
    supervised = Supervised(fail, every=1)
    slave, errors = supervised.slave, [ValueError("a"), ValueError("a"), ValueError("b"), None]
    for error in [*errors, None]:
        slave.call_ended(error)

    assert supervised.reports == ["backing off", "backing off", "running"]
    assert slave.ticks == 5


def test_a_slave_that_returns_is_finished_and_the_daemon_healthy(app: Daemon) -> None:
    app.slave(name="once")(lambda: None)

    with running(app) as client:
        assert wait_for_state(client, "once", "finished")["last_error"] is None
        assert client.get("/ping").text == "OK\n"


ERRORS = [
    (ValueError("no"), "failed"),
    (SystemExit(3), "raised SystemExit(3), which ends the slave and not the daemon"),
    (KeyboardInterrupt("k"), "raised KeyboardInterrupt, which ends the slave and not the daemon"),
    (MemoryError("m"), "ran out of memory"),
    (asyncio.CancelledError("c"), "raised CancelledError"),
]


@pytest.mark.parametrize(
    ("error", "what"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)
def test_any_exception_in_a_slave_is_logged_and_restarts_it(
    app: Daemon, error: BaseException, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[Slave] = []

    @app.slave(backoff=(0, 0))
    def bad(slave: Slave) -> None:
        runs.append(slave)
        if len(runs) == 1:
            raise error
        slave.shutdown.wait()

    with running(app) as client:
        client.wait_until(lambda: len(runs) == 2)
        shown = wait_for_state(client, "bad", "running")
        assert client.get("/ping").text == "OK\n"

    assert shown["restarts"] == 1
    text = f"{type(error).__name__}: {error}"
    assert shown["last_error"]["error"] == text
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in bad", shown["last_error"]["place"])
    assert [restart["reason"] for restart in shown["last_restarts"]] == [text]
    assert runs[0] is not runs[1]
    assert f"The slave bad {what}; restart 1 in 0 s" in caplog.messages
    assert client.exit_status == 0


def test_a_slave_that_is_backing_off_is_a_problem_and_does_not_delay_the_stop(app: Daemon) -> None:
    app.add_slave(raise_no, name="bad", backoff=3600)

    with running(app) as client:
        shown = wait_for_state(client, "bad", "backing off")
        ping = client.get("/ping")

    assert (ping.status_code, ping.text) == (503, "the slave bad is backing off\n")
    assert 0 < shown["next_restart_in"] <= 1.5 * 3600
    assert shown["restarts"] == 0
    assert client.exit_status == 0


def test_a_slave_with_restart_always_is_restarted_when_it_returns(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    runs: list[int] = []
    app.slave(name="job", restart="always", backoff=(0, 0), max_restarts=None)(
        lambda: runs.append(1)
    )

    with running(app) as client:
        client.wait_until(lambda: len(runs) > 12)
        shown = slave_status(client, "job")

    assert "The slave job returned; restart 1 in 0 s" in caplog.messages
    assert shown["last_error"] is None
    assert [restart["reason"] for restart in shown["last_restarts"]] == ["returned"] * 10
    assert client.exit_status == 0


def test_a_slave_that_gives_up_stops_the_daemon_with_1(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    runs: list[int] = []

    @app.slave(backoff=(0, 0), max_restarts=3, within=30)
    def loop() -> None:
        runs.append(1)
        raise ValueError("no")

    with running(app) as client:
        assert app.shutdown.wait(10)

    assert len(runs) == 4
    assert client.exit_status == 1
    assert (
        "The slave loop gave up: 3 restarts within 30 s were not enough; the daemon stops"
        in caplog.messages
    )
    assert "Stopping: the slave loop gave up" in caplog.messages


def test_a_slave_that_is_not_critical_stays_down_and_health_says_so(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    app.slave(name="extra", restart="never", critical=False)(raise_no)

    with running(app) as client:
        shown = wait_for_state(client, "extra", "failed")
        ping, ready = client.get("/ping"), client.get("/ready")
        problems = client.status()["problems"]

    assert shown["restarts"] == 0
    assert (ping.status_code, ping.text) == (503, "the slave extra has failed\n")
    assert ready.status_code == 200
    assert problems == ["the slave extra has failed"]
    assert (
        "The slave extra gave up: it is not restarted (restart is 'never'); it stays down"
        in caplog.messages
    )
    assert client.exit_status == 0


def test_a_periodic_slave_ticks_until_stopped_and_survives_a_failed_tick(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    ticks: list[int] = []
    hold = threading.Event()

    @app.slave(every=0.01)
    def sweep() -> None:
        ticks.append(len(ticks))
        if len(ticks) == 2:
            raise ValueError("bad tick")
        if len(ticks) == 3:
            hold.wait(10)

    with running(app) as client:
        shown = wait_for_state(client, "sweep", "backing off")
        assert shown["last_error"]["error"] == "ValueError: bad tick"
        assert client.get("/ping").status_code == 503
        hold.set()
        wait_for_state(client, "sweep", "running")
        assert client.get("/ping").status_code == 200
        client.wait_until(lambda: slave_status(client, "sweep")["ticks"] >= 5)

    assert caplog.messages.count("The slave sweep works again") == 1


def test_a_slave_whose_init_exits_has_failed_like_any_other(app: Daemon) -> None:
    class Exits(Worker):
        def __init__(self) -> None:
            raise SystemExit(0)

    app.add_slave(Exits, restart="never", critical=False)
    with running(app) as client:
        assert wait_for_state(client, "Exits", "failed")["last_error"]["error"] == "SystemExit: 0"


@pytest.mark.parametrize("late", [False, True], ids=["registered", "run_slave"])
def test_a_slave_whose_thread_cannot_be_started_is_retried(
    app: Daemon, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = threading.Thread.start
    refusals = [1, 2]

    def refuse(self: threading.Thread) -> None:
        if self.name == "unlucky" and refusals:
            refusals.pop()
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    options: Any = {"name": "unlucky", "backoff": (0.01, 0.01)}
    if not late:
        app.add_slave(Worker, **options)
    with running(app) as client:
        if late:
            assert app.run_slave(Worker, **options) is None
        shown = wait_for_state(client, "unlucky", "running")

    assert shown["restarts"] == 2
    assert shown["last_error"]["error"] == "RuntimeError: can't start new thread"
    assert client.exit_status == 0


@pytest.mark.parametrize("kind", ["function", "async", "periodic"])
def test_a_slave_without_a_heartbeat_is_stalled_until_it_recovers(
    app: Daemon, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    release = threading.Event()

    def recovered() -> bool:
        return any(m.startswith("The slave hang recovered after ") for m in caplog.messages)

    def hang() -> None:
        release.wait(20)

    async def inner() -> None:
        while not release.is_set():
            await asyncio.sleep(0.01)  # it awaits here

    async def hang_async(slave: Slave) -> None:
        await inner()
        while not recovered():
            slave.heartbeat()
            await asyncio.sleep(0.01)

    if kind == "async":
        app.add_slave(hang_async, name="hang", timeout=0.2)
    else:
        app.add_slave(hang, timeout=0.2, every=60 if kind == "periodic" else None)
    with running(app) as client:
        shown = wait_for_state(client, "hang", "stalled")
        ping = client.get("/ping")
        client.wait_until(lambda: "is stalled" in caplog.text)
        release.set()
        client.wait_until(lambda: slave_status(client, "hang")["state"] != "stalled")
        assert client.get("/ping").text == "OK\n"
        if kind != "function":
            client.wait_until(recovered)

    assert (ping.status_code, ping.text) == (503, "the slave hang is stalled\n")
    assert shown["last_heartbeat"] < shown["last_heartbeat"][:20] + "a"
    (report,) = [m for m in caplog.messages if m.startswith("The slave hang is stalled: ")]
    assert ("it awaits here" if kind == "async" else "release.wait(20)") in report
    assert "(timeout 0.2 s)" in report


def test_a_periodic_slave_whose_last_call_failed_has_failed_when_it_stops() -> None:
    supervised = Supervised(fail, every=3600)
    slave = supervised.slave
    supervised.supervisor.start()
    until(lambda: slave.state == "backing off")
    supervised.supervisor.request_stop()
    assert supervised.supervisor.join(10)

    assert slave.state == "failed"
    assert "the slave work gave up" not in supervised.reports
