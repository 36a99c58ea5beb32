from __future__ import annotations

import asyncio
import os
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.runtime.heartbeat import Heartbeat
from daemonkit.runtime.stacks import stack_of
from daemonkit.supervision.calls import Calls
from daemonkit.supervision.slave_thread import SlaveThread
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.testing import running

from ..clock import Clock
from .slaves import slave_status, wait_for_state


class Recorder:
    """An observer that records its calls; it can refuse to run the slave, or end it."""

    def __init__(self, *, runs: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.runs = runs
        self.raises_after = 10**9

    def created(self, slave: Slave) -> bool:
        self.calls.append(("created", slave.name, slave.started is not None))
        return self.runs

    def call_ended(self, error: BaseException | None) -> None:
        self.calls.append(("call", error))
        if len(self.calls) > self.raises_after:
            raise error or ValueError("enough")

    def exited(self, error: BaseException | None) -> None:
        self.calls.append(("exited", error))


def make(target: Any, observer: Recorder, **options: Any) -> SlaveThread:
    spec = SlaveSpec.make(target, "slave", {"name": "work", **options})
    calls = None if spec.every is None else Calls(spec.every)
    return SlaveThread(
        spec, Daemon("app"), observer, lambda age: None, lambda age: None, lambda: None, calls
    )


def run(target: Any, observer: Recorder, **options: Any) -> SlaveThread:
    slave_thread = make(target, observer, **options)
    slave_thread.thread.start()
    slave_thread.thread.join(10)
    assert slave_thread.is_over
    return slave_thread


def wait_until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


async def coroutine() -> None: ...


@pytest.mark.parametrize("target", [lambda: None, coroutine], ids=["function", "async"])
def test_a_run_is_reported_from_creation_to_exit(target: Any) -> None:
    observer = Recorder()
    run(target, observer)

    assert observer.calls == [("created", "work", True), ("exited", None)]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()])
@pytest.mark.parametrize("is_async", [False, True])
def test_the_exit_has_the_exception(error: BaseException, is_async: bool) -> None:
    def fail() -> None:
        raise error

    async def fail_async() -> None:
        raise error

    observer = Recorder()
    run(fail_async if is_async else fail, observer)

    assert observer.calls[-1] == ("exited", error)


def test_an_exception_in_init_is_an_exit_without_a_creation() -> None:
    error = OSError("no disk")

    class Broken(Slave):
        def __init__(self) -> None:
            raise error

        def run(self) -> None: ...

    observer = Recorder()
    run(Broken, observer)

    assert observer.calls == [("exited", error)]


def test_a_slave_that_is_not_to_run_is_only_created() -> None:
    ran: list[int] = []
    observer = Recorder(runs=False)
    run(lambda: ran.append(1), observer)

    assert ran == []
    assert [call[0] for call in observer.calls] == ["created", "exited"]


@pytest.mark.parametrize("target", [lambda: None, coroutine], ids=["function", "async"])
def test_a_periodic_slave_is_called_until_its_observer_ends_it(target: Any) -> None:
    observer = Recorder()
    observer.raises_after = 3
    run(target, observer, every=0.001)

    assert [call[0] for call in observer.calls] == ["created", "call", "call", "call", "exited"]
    assert str(observer.calls[-1][1]) == "enough"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_stop_request_ends_the_wait_for_the_next_call(is_async: bool) -> None:
    called = threading.Event()

    async def call() -> None:
        called.set()

    observer = Recorder()
    slave_thread = make(call if is_async else called.set, observer, every=3600)
    slave_thread.thread.start()
    assert called.wait(10)
    slave_thread.request_stop()
    slave_thread.thread.join(10)

    assert observer.calls[-1] == ("exited", None)


def test_the_stack_of_a_coroutine_includes_what_it_awaits() -> None:
    waiting = threading.Event()

    async def inner() -> None:
        waiting.set()
        await asyncio.sleep(3600)  # it awaits here

    async def outer() -> None:
        await inner()

    slave_thread = make(outer, Recorder())
    slave_thread.thread.start()
    assert waiting.wait(10)
    stack = stack_of(slave_thread.thread)
    slave_thread.request_stop()
    slave_thread.thread.join(10)

    assert "it awaits here" in stack


def test_helper_threads_see_the_shutdown_event_when_the_slave_has_ended() -> None:
    events: list[threading.Event] = []
    run(lambda slave: events.append(slave.shutdown), Recorder())

    assert events[0].is_set()


def test_the_end_of_a_run_is_its_last_heartbeat(clock: Clock) -> None:
    def work() -> None:
        clock.now += 7

    assert run(work, Recorder()).heartbeat.age() == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of all heartbeats."""
    clock = Clock()
    monkeypatch.setattr(
        "daemonkit.supervision.slave_thread.Heartbeat", partial(Heartbeat, clock=clock)
    )
    return clock


def beats(slave: Slave) -> None:
    while not slave._stop_event._flag:  # type: ignore[attr-defined]
        time.sleep(0.001)
        slave.heartbeat()


def looks(slave: Slave) -> None:
    while not slave.shutdown.is_set():
        time.sleep(0.001)


class SleepsInInit(Slave):
    def __init__(self) -> None:
        self.sleep(60)

    def run(self) -> None: ...


@pytest.mark.parametrize(
    ("target", "every"),
    [
        (beats, None),
        (looks, None),
        (lambda slave: slave.sleep(60), None),
        (lambda slave: slave.shutdown.wait(), None),
        (SleepsInInit, None),
        (lambda: time.sleep(0.001), 0.001),
        (lambda: None, 3600),
        (coroutine, 3600),
    ],
    ids=["beats", "looks", "sleeps", "waits", "init", "called", "scheduled", "async"],
)
def test_a_slave_that_waits_for_shutdown_or_beats_does_not_stall(
    target: Any, every: float | None, clock: Clock
) -> None:
    slave_thread = make(target, Recorder(), timeout=10, every=every)
    heartbeat = slave_thread.heartbeat
    slave_thread.thread.start()
    for _ in range(3):
        clock.now += 100
        wait_until(lambda: heartbeat.age() == 0)
    slave_thread.request_stop()
    slave_thread.thread.join(10)

    assert not slave_thread.thread.is_alive()


async def hangs_async(release: threading.Event, ready: threading.Event) -> None:
    ready.set()
    while not release.is_set():
        await asyncio.sleep(0.001)


def hangs(release: threading.Event, ready: threading.Event) -> None:
    ready.set()
    release.wait(10)


@pytest.mark.parametrize("work", [hangs, hangs_async])
@pytest.mark.parametrize("every", [None, 3600])
def test_a_slave_that_neither_waits_nor_beats_stalls(
    work: Any, every: float | None, clock: Clock
) -> None:
    release, ready = threading.Event(), threading.Event()
    slave_thread = make(partial(work, release, ready), Recorder(), timeout=10, every=every)
    slave_thread.thread.start()
    assert ready.wait(10)
    clock.now += 11
    stalled = slave_thread.heartbeat.is_stalled
    release.set()
    slave_thread.request_stop()
    slave_thread.thread.join(10)

    assert stalled


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


def test_a_coroutine_cancelled_by_other_code_has_failed(app: Daemon) -> None:
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


def test_a_slave_that_replaces_its_shutdown_does_not_keep_the_daemon_from_stopping(
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
def test_any_exception_in_a_periodic_slave_is_a_failed_call_and_the_next_comes_as_planned(
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
        # More often than a slave may be restarted.
        client.wait_until(lambda: slave_status(client, "sweep")["ticks"] > 7)
        ping = client.get("/ping")
        works.set()
        shown = wait_for_state(client, "sweep", "running")
        assert client.get("/ping").text == "OK\n"

    assert (ping.status_code, ping.text) == (503, "the slave sweep is backing off\n")
    assert (shown["restarts"], len(threads)) == (0, 1)
    assert re.fullmatch(rf"{re.escape(__file__)}:\d+ in sweep", shown["last_error"]["place"])
    first, repeated, last = [m for m in caplog.messages if m.startswith("The slave")]
    assert first == f"The slave sweep {what}; it is called again as scheduled"
    assert re.fullmatch(
        rf"The slave sweep {re.escape(what.partition('(')[0])}: \d+ more in the last 1 s at {re.escape(__file__)}:\d+, last: .+",
        repeated,
    )
    assert last == "The slave sweep works again"
    assert client.exit_status == 0


@pytest.mark.parametrize("kind", ["function", "async"])
def test_any_exception_ends_a_periodic_slave_with_restart_never(
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
def test_an_exception_that_leaves_the_event_loop_is_a_failure_of_its_periodic_slave(
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
    "error",
    [ValueError("no"), SystemExit(3), asyncio.CancelledError()],
    ids=lambda error: type(error).__name__,
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
def test_a_child_forked_in_a_coroutine_ends_when_a_task_makes_the_loop_raise(
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
