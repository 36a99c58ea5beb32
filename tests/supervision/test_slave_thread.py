from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.supervision.slave import SlaveSpec
from daemonkit.supervision.slave_thread import SlaveThread


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
    return SlaveThread(
        spec, Daemon("app"), observer, lambda age: None, lambda age: None, lambda: None
    )


def run(target: Any, observer: Recorder, **options: Any) -> SlaveThread:
    slave_thread = make(target, observer, **options)
    slave_thread.thread.start()
    slave_thread.thread.join(10)
    assert slave_thread.is_over
    return slave_thread


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
    stack = slave_thread.stack()
    slave_thread.request_stop()
    slave_thread.thread.join(10)

    assert "it awaits here" in stack


def test_helper_threads_see_the_shutdown_event_when_the_slave_has_ended() -> None:
    events: list[threading.Event] = []
    run(lambda slave: events.append(slave.shutdown), Recorder())

    assert events[0].is_set()
