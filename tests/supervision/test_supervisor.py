from __future__ import annotations

import asyncio
import os
import re
import threading
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.testing import Client, running


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


def slave_status(client: Client, name: str) -> dict[str, Any]:
    return next(slave for slave in client.status()["slaves"] if slave["name"] == name)


def wait_for_state(client: Client, name: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        shown = slave_status(client, name)
        return shown if shown["state"] == state else None

    found: dict[str, Any] = client.wait_until(look, f"{name} {state}")
    return found


def test_a_function_slave_gets_itself_and_runs_on_a_thread_of_its_name(app: Daemon) -> None:
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


def test_a_slave_that_returns_is_finished_and_health_is_good(app: Daemon) -> None:
    app.slave(name="once")(lambda: None)

    with running(app) as client:
        assert wait_for_state(client, "once", "finished")["last_error"] is None
        assert client.get("/ping").text == "OK\n"


NO = ValueError("no")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (NO, "failed"),
        (SystemExit(3), "raised SystemExit(3), which ends the slave and not the daemon"),
        (
            KeyboardInterrupt("k"),
            "raised KeyboardInterrupt, which ends the slave and not the daemon",
        ),
        (MemoryError("m"), "ran out of memory"),
        (asyncio.CancelledError("c"), "raised CancelledError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_slave_raises_restarts_it_and_is_told(
    app: Daemon, error: BaseException, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    lives: list[Slave] = []

    @app.slave(backoff=(0.1, 0.1))
    def bad(slave: Slave) -> None:
        lives.append(slave)
        if len(lives) == 1:
            raise error
        slave.shutdown.wait()

    with running(app) as client:
        waiting = wait_for_state(client, "bad", "backing off")
        ping = client.get("/ping")
        shown = wait_for_state(client, "bad", "running")
        assert client.get("/ping").text == "OK\n"

    assert (ping.status_code, ping.text) == (503, "the slave bad is backing off\n")
    assert 0 <= waiting["next_restart_in"] <= 0.1
    assert waiting["restarts"] == 0
    assert (shown["restarts"], len(lives)) == (1, 2)
    text = f"{type(error).__name__}: {error}"
    assert shown["last_error"]["error"] == text
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in bad", shown["last_error"]["place"])
    assert [restart["reason"] for restart in shown["last_restarts"]] == [text]
    assert lives[0] is not lives[1]
    assert f"The slave bad {what}; restart 1 in 0.1 s" in caplog.messages
    assert client.exit_status == 0


def test_a_slave_that_returns_is_started_again_when_it_is_to_be_always_there(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lives: list[int] = []
    app.slave(name="job", restart="always", backoff=(0, 0), max_restarts=None)(
        lambda: lives.append(1)
    )

    with running(app) as client:
        client.wait_until(lambda: len(lives) > 12)
        shown = slave_status(client, "job")

    assert "The slave job returned; restart 1 in 0 s" in caplog.messages
    assert shown["last_error"] is None
    assert [restart["reason"] for restart in shown["last_restarts"]] == ["returned"] * 10
    assert client.exit_status == 0


def test_a_slave_that_gives_up_stops_the_daemon_with_1(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lives: list[int] = []

    @app.slave(backoff=(0, 0), max_restarts=3, within=30)
    def loop() -> None:
        lives.append(1)
        raise NO

    with running(app) as client:
        assert app.shutdown.wait(10)

    assert len(lives) == 4
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


def raise_no() -> None:
    raise NO


def test_a_periodic_slave_ticks_until_stopped_and_survives_a_bad_tick(
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


def test_ticks_never_overlap(app: Daemon) -> None:
    inside = threading.Semaphore(1)
    overlaps: list[bool] = []

    @app.slave(every=0.001)
    def slow(slave: Slave) -> None:
        overlaps.append(not inside.acquire(blocking=False))
        slave.shutdown.wait(0.01)
        inside.release()

    with running(app) as client:
        client.wait_until(lambda: len(overlaps) >= 5)

    assert not any(overlaps)


def test_an_async_slave_runs_in_a_loop_and_is_cancelled_at_shutdown(app: Daemon) -> None:
    seen: list[str] = []

    @app.slave
    async def stream(slave: Slave) -> None:
        seen.append(threading.current_thread().name)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with running(app) as client:
        client.wait_until(lambda: seen)

    assert seen == ["stream", "cancelled"]
    assert client.exit_status == 0


def test_a_coroutine_cancelled_by_somebody_else_has_failed(app: Daemon) -> None:
    @app.slave(restart="never", critical=False)
    async def stream() -> None:
        raise asyncio.CancelledError

    with running(app) as client:
        wait_for_state(client, "stream", "failed")


def test_a_periodic_async_slave_keeps_one_loop(app: Daemon) -> None:
    loops: list[int] = []

    @app.slave(every=0.01)
    async def poll() -> None:
        loops.append(id(asyncio.get_running_loop()))
        if len(loops) == 2:
            raise ValueError("bad tick")

    with running(app) as client:
        client.wait_until(lambda: len(loops) >= 4)

    assert len(set(loops)) == 1


class Worker(Slave):
    def __init__(self, url: str = "none", *, limit: int = 0) -> None:
        self.logger.info("making %s", self.name)
        self.arguments = (url, limit)

    def run(self) -> None:
        self.shutdown.wait()

    def status(self) -> dict[str, Any]:
        return {**super().status(), "arguments": self.arguments}


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


def test_a_slave_that_cannot_be_made_is_tried_again_and_the_others_start(app: Daemon) -> None:
    app.add_slave(Broken, after="Worker")
    app.add_slave(Worker, after="dependent", name="last")
    app.add_slave(Worker, after="Broken", name="dependent")
    app.add_slave(Worker)

    with running(app) as client:
        shown = wait_for_state(client, "Broken", "backing off")
        wait_for_state(client, "last", "running")

    assert shown["last_error"]["error"] == "OSError: no disk"
    assert shown["last_error"]["place"].endswith(" in __init__")


def test_run_slave_raises_what_keeps_the_slave_from_being_made_and_leaves_it_at_that(
    app: Daemon,
) -> None:
    with running(app) as client:
        with pytest.raises(OSError, match="no disk"):
            app.run_slave(Broken, name="again")
        assert client.status()["slaves"] == []
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


def test_a_status_that_raises_or_is_no_mapping_hides_no_other(app: Daemon) -> None:
    class Raises(Worker):
        def status(self) -> dict[str, Any]:
            raise ValueError("no status")

    class Odd(Worker):
        def status(self) -> Any:
            return "fine"

    for slave in (Raises, Odd, Worker):
        app.add_slave(slave)

    with running(app) as client:
        client.wait_until(lambda: client.status()["slaves"][2]["state"] == "running")
        raising, odd, _ = client.status()["slaves"]

    assert (raising["name"], raising["error"]) == ("Raises", "ValueError: no status")
    assert (odd["name"], odd["state"], odd["status"]) == ("Odd", "running", "fine")


def test_a_slave_that_will_not_stop_is_named_with_its_stack(
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
    assert "Stopped by the deadline of 0.5 s; still running: stubborn" in caplog.messages


def test_a_slave_that_is_being_made_when_stopping_begins_is_not_started(app: Daemon) -> None:
    made, release = threading.Event(), threading.Event()
    ran: list[str] = []
    told: list[str] = []

    def start_slow() -> None:
        try:
            app.run_slave(Slow)
        except RegistrationError as error:
            told.append(str(error))

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
    assert told == ["the daemon is stopping: Slow is not started"]
    assert client.exit_status == 0


def test_a_slave_whose_init_exits_is_told_like_any_other(app: Daemon) -> None:
    class Exits(Worker):
        def __init__(self) -> None:
            raise SystemExit(0)

    app.add_slave(Exits, restart="never", critical=False)
    with running(app) as client:
        assert wait_for_state(client, "Exits", "failed")["last_error"]["error"] == "SystemExit: 0"


@pytest.mark.parametrize("late", [False, True], ids=["registered", "run_slave"])
def test_a_slave_whose_thread_cannot_be_started_is_tried_again(
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


def test_a_slave_that_loses_its_shutdown_does_not_keep_the_daemon_from_stopping(
    app: Daemon,
) -> None:
    @app.slave
    class Odd(Slave):
        def run(self) -> None:
            shutdown, self.shutdown = self.shutdown, None  # type: ignore[assignment]
            shutdown.wait()

    with running(app) as client:
        wait_for_state(client, "Odd", "running")

    assert client.exit_status == 0


def test_a_tick_that_swallows_the_cancellation_is_the_last(app: Daemon) -> None:
    ticking = threading.Event()

    @app.slave(every=0.01)
    async def stubborn() -> None:
        ticking.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

    with running(app) as client:
        ticking.wait(10)

    assert client.exit_status == 0


def test_a_slave_that_shows_life_in_any_way_is_not_stalled(app: Daemon) -> None:
    beats: list[int] = []

    @app.slave(timeout=0.3)
    def heart(slave: Slave) -> None:
        pause = threading.Event()
        while not app.shutdown.is_set():
            pause.wait(0.05)
            slave.heartbeat()
            beats.append(1)

    @app.slave(timeout=0.3)
    def sleeper(slave: Slave) -> None:
        assert slave.sleep(60)

    @app.slave(timeout=0.3)
    def looks(slave: Slave) -> None:
        while not slave.shutdown.is_set():
            threading.Event().wait(0.01)

    @app.slave(timeout=0.3, every=0.1)
    def ticks() -> None: ...

    @app.slave(timeout=0.3, every=60)
    async def rests() -> None: ...

    with running(app) as client:
        client.wait_until(lambda: len(beats) > 20)
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


@pytest.mark.parametrize("kind", ["function", "async", "periodic"])
def test_a_slave_that_shows_none_is_stalled_until_it_does(
    app: Daemon, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    release = threading.Event()

    def hang() -> None:
        release.wait(20)

    async def inner() -> None:
        while not release.is_set():
            await asyncio.sleep(0.01)  # it awaits here

    async def hang_async(slave: Slave) -> None:
        await inner()
        slave.heartbeat()
        await asyncio.sleep(0.1)

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
            told = "The slave hang recovered after "
            client.wait_until(lambda: any(m.startswith(told) for m in caplog.messages))

    assert (ping.status_code, ping.text) == (503, "the slave hang is stalled\n")
    assert shown["last_heartbeat"] < shown["last_heartbeat"][:20] + "a"
    (report,) = [m for m in caplog.messages if m.startswith("The slave hang is stalled: ")]
    assert ("it awaits here" if kind == "async" else "release.wait(20)") in report
    assert "(timeout 0.2 s)" in report


@pytest.mark.parametrize("kind", ["function", "async"])
@pytest.mark.parametrize(
    ("error", "what"),
    [
        (SystemExit(3), "raised SystemExit(3)"),
        (KeyboardInterrupt(), "raised KeyboardInterrupt"),
        (GeneratorExit(), "raised GeneratorExit"),
        (MemoryError(), "ran out of memory"),
        (asyncio.CancelledError(), "raised CancelledError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_a_periodic_slave_raises_is_a_failed_call_and_the_next_comes_as_planned(
    app: Daemon, kind: str, error: BaseException, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    threads: set[int] = set()
    works = threading.Event()

    def sweep() -> None:
        threads.add(threading.get_ident())
        if not works.is_set():
            raise error

    async def sweep_async() -> None:
        sweep()

    app.add_slave(sweep if kind == "function" else sweep_async, name="sweep", every=0.01)
    with running(app) as client:
        # More often than a slave is restarted before it gives up.
        client.wait_until(lambda: slave_status(client, "sweep")["ticks"] > 7)
        ping = client.get("/ping")
        works.set()
        shown = wait_for_state(client, "sweep", "running")
        assert client.get("/ping").text == "OK\n"

    assert (ping.status_code, ping.text) == (503, "the slave sweep is backing off\n")
    assert (shown["restarts"], len(threads)) == (0, 1)
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in sweep", shown["last_error"]["place"])
    assert [m for m in caplog.messages if m.startswith("The slave")] == [
        f"The slave sweep {what}; it is called again as scheduled",
        "The slave sweep works again",
    ]
    assert client.exit_status == 0


@pytest.mark.parametrize("kind", ["function", "async"])
def test_whatever_a_periodic_slave_raises_ends_it_if_it_is_never_to_be_restarted(
    app: Daemon, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def sweep() -> None:
        calls.append(1)
        raise SystemExit(3)

    async def sweep_async() -> None:
        await asyncio.create_task(asyncio.to_thread(sweep))

    work = sweep if kind == "function" else sweep_async
    app.add_slave(work, name="sweep", every=0.01, restart="never", critical=False)
    with running(app) as client:
        shown = wait_for_state(client, "sweep", "failed")

    assert (shown["ticks"], calls) == (1, [1])
    ends = "The slave sweep raised SystemExit(3), which ends the slave and not the daemon"
    assert ends in caplog.messages


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("awaited", [True, False])
def test_what_a_task_makes_the_event_loop_raise_is_a_failure_of_its_periodic_slave(
    app: Daemon, error: BaseException, awaited: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    calls: list[asyncio.Task[None]] = []

    async def inner() -> None:
        if len(calls) == 1:
            raise error

    @app.slave(every=0.01)
    async def sweep() -> None:
        calls.append(asyncio.create_task(inner()))
        if awaited:
            await calls[-1]

    with running(app) as client:
        client.wait_until(lambda: len(calls) > 2)
        shown = slave_status(client, "sweep")
        assert client.get("/ping").text == "OK\n"

    assert (shown["state"], shown["restarts"]) == ("running", 0)
    assert shown["last_error"]["error"].startswith(type(error).__name__)
    (failed,) = [m for m in caplog.messages if m.endswith("; it is called again as scheduled")]
    assert failed.startswith(f"The slave sweep raised {type(error).__name__}")
    assert client.exit_status == 0


@pytest.mark.parametrize("leaves", [True, False])
def test_a_periodic_async_slave_that_waits_for_its_next_call_stops_at_once(
    app: Daemon, leaves: bool
) -> None:
    calls: list[int] = []

    async def inner() -> None:
        if leaves:
            raise SystemExit(3)

    @app.slave(every=3600)
    async def sweep() -> None:
        calls.append(1)
        await asyncio.create_task(inner())

    with running(app) as client:
        wait_for_state(client, "sweep", "backing off" if leaves else "running")
        client.wait_until(lambda: slave_status(client, "sweep")["ticks"])

    assert calls == [1]
    assert client.exit_status == 0


@pytest.mark.parametrize(
    "error", [NO, SystemExit(3), asyncio.CancelledError()], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("inner", [True, False])
def test_a_call_that_fails_at_the_moment_of_the_stop_is_the_last(
    app: Daemon, error: BaseException, inner: bool
) -> None:
    calls: list[int] = []

    async def fail(slave: Slave) -> None:
        app.stop()
        while not slave.shutdown.is_set():
            threading.Event().wait(0.001)
        raise error

    @app.slave(every=0.01)
    async def sweep(slave: Slave) -> None:
        calls.append(1)
        await (asyncio.create_task(fail(slave)) if inner else fail(slave))

    with running(app) as client:
        client.wait_until(app.shutdown.is_set)

    assert calls == [1]
    assert client.exit_status == 0


def test_run_slave_waits_for_those_it_is_to_start_after(app: Daemon) -> None:
    order: list[str] = []

    class Slow(Worker):
        def __init__(self) -> None:
            threading.Event().wait(0.1)
            order.append("Slow")

    with running(app) as client:
        thread = threading.Thread(target=lambda: app.run_slave(Slow))
        thread.start()
        client.wait_until(lambda: client.status()["slaves"])
        app.run_slave(lambda: order.append("after"), name="after", after="Slow")
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


def test_what_a_slave_fails_at_while_stopping_changes_no_exit_status(app: Daemon) -> None:
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


def test_a_slave_that_gives_up_while_draining_changes_no_exit_status(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    @app.slave(restart="never")
    def feeder() -> None:
        app.shutdown.wait()
        raise NO

    with running(app, {"master": {"drain_delay": 0.3}}) as client:
        pass

    assert (
        "The slave feeder gave up: it is not restarted (restart is 'never'); the daemon stops"
        in caplog.messages
    )
    assert client.exit_status == 0


def test_while_stopping_nothing_is_started_again(app: Daemon) -> None:
    lives: list[int] = []
    app.on_event(lambda event: threading.Event().wait(0.5))

    @app.slave(backoff=(0, 0), max_restarts=None)
    def loop() -> None:
        lives.append(1)
        app.shutdown.wait()
        raise NO

    with running(app) as client:
        client.send_event(0)
        client.wait_until(lambda: lives)

    assert len(lives) < 5
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


def test_a_heartbeat_from_elsewhere_does_not_end_a_rest(app: Daemon) -> None:
    slaves: list[Slave] = []

    @app.slave(timeout=0.2)
    def rests(slave: Slave) -> None:
        slaves.append(slave)
        slave.shutdown.wait()

    with running(app) as client:
        client.wait_until(lambda: slaves)
        slaves[0].heartbeat()
        threading.Event().wait(0.5)
        assert slave_status(client, "rests")["state"] == "running"


def test_a_slave_that_waits_while_it_is_made_is_not_stalled(app: Daemon) -> None:
    class Patient(Worker):
        def __init__(self) -> None:
            self.sleep(0.6)

    app.add_slave(Patient, timeout=0.2)
    states: list[str] = []
    app.add_status_field(lambda: 1, name="x")
    with running(app) as client:
        states = [client.status()["slaves"][0]["state"]]
    assert app._assembly.supervisor is not None
    assert states == ["running"]
    assert app._assembly.supervisor.slaves()[0].last_failure is None


@pytest.mark.parametrize("every", [None, 60])
def test_a_child_forked_in_a_coroutine_ends_without_touching_the_loop(
    app: Daemon, every: float | None
) -> None:
    ended: list[int] = []

    @app.slave(every=every)
    async def forks() -> None:
        child = os.fork()
        if child == 0:
            return
        ended.append(os.waitpid(child, 0)[1])
        await asyncio.sleep(3600)

    with running(app) as client:
        client.wait_until(lambda: ended)

    assert ended == [0]
    assert client.exit_status == 0


@pytest.mark.parametrize("every", [None, 60])
def test_a_child_forked_in_a_coroutine_ends_where_a_task_makes_the_loop_raise(
    app: Daemon, every: float | None
) -> None:
    ended: list[int] = []

    async def inner() -> None:
        child = os.fork()
        if child == 0:
            raise SystemExit(7)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    @app.slave(every=every)
    async def forks() -> None:
        await asyncio.create_task(inner())
        await asyncio.sleep(3600)

    with running(app) as client:
        client.wait_until(lambda: ended)

    assert ended == [7]
    assert client.exit_status == 0
