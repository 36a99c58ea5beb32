from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit.runtime.eventloop import EventLoop, Stopped
from daemonkit.runtime.forks import ForkGuard


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop(ForkGuard())
    yield loop
    loop.close()


def run(loop: EventLoop, function: Callable[[], Any]) -> BaseException | None:
    """Run a coroutine function; returns what is raised."""
    try:
        loop.run(function)
    except BaseException as error:
        return error
    return None


def fail_by(error: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


def running_loop(loop: EventLoop) -> asyncio.AbstractEventLoop:
    found: list[Any] = []

    async def look() -> None:
        found.append(asyncio.get_running_loop())

    loop.run(look)
    return found[0]


async def await_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    task.cancel()
    await task


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (fail_by(ValueError()), ValueError),
        (fail_by(SystemExit(3)), SystemExit),
        (fail_by(KeyboardInterrupt()), KeyboardInterrupt),
        (fail_by(GeneratorExit()), GeneratorExit),
        (fail_by(asyncio.CancelledError()), asyncio.CancelledError),
        (await_a_cancelled_task, asyncio.CancelledError),
        (cancel_itself, asyncio.CancelledError),
    ],
)
def test_an_exception_in_a_coroutine_ends_neither_the_loop_nor_its_other_tasks(
    loop: EventLoop, function: Callable[[], Any], kind: type[BaseException]
) -> None:
    others: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        others.append(asyncio.create_task(asyncio.sleep(3600)))

    loop.run(begin)
    before = running_loop(loop)

    assert type(run(loop, function)) is kind
    assert running_loop(loop) is before
    assert not others[0].done()
    loop.sleep(0.001)


async def inner_exit() -> None:
    await asyncio.create_task(fail_by(SystemExit(3))())


async def caught_inner_exit() -> None:
    try:
        await inner_exit()
    except SystemExit:
        await asyncio.sleep(3600)


async def inner_interrupt() -> None:
    await asyncio.gather(fail_by(KeyboardInterrupt())(), asyncio.sleep(3600))


async def exit_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(3600)


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(3600)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (inner_exit, SystemExit),
        (caught_inner_exit, SystemExit),
        (inner_interrupt, KeyboardInterrupt),
        (exit_in_a_callback, SystemExit),
        (stop_the_loop, RuntimeError),
    ],
)
def test_an_exception_that_leaves_the_loop_ends_its_tasks_and_the_next_coroutine_has_a_new_loop(
    loop: EventLoop, function: Callable[[], Any], kind: type[BaseException]
) -> None:
    ended: list[bool] = []

    async def whole() -> None:
        try:
            await function()
        finally:
            ended.append(True)

    before = running_loop(loop)

    assert type(run(loop, whole)) is kind
    assert ended == [True]
    assert before.is_closed()
    assert not running_loop(loop).is_closed()


def test_an_error_while_cleaning_up_does_not_hide_the_one_that_left_the_loop(
    loop: EventLoop,
) -> None:
    async def whole() -> None:
        try:
            await inner_exit()
        finally:
            raise ValueError("clean-up")

    assert repr(run(loop, whole)) == "SystemExit(3)"
    assert not running_loop(loop).is_closed()


@pytest.mark.parametrize("early", [True, False], ids=["before", "meanwhile"])
def test_cancel_stops_the_running_coroutine_and_all_later_ones(
    loop: EventLoop, early: bool
) -> None:
    begun: list[bool] = []

    async def work() -> None:
        begun.append(True)
        loop.cancel()
        await asyncio.sleep(3600)

    if early:
        loop.cancel()

    assert type(run(loop, work)) is Stopped
    assert begun == ([] if early else [True])
    with pytest.raises(Stopped):
        loop.sleep(3600)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_a_failure_at_the_moment_of_the_cancellation_is_not_lost(
    loop: EventLoop, error: BaseException
) -> None:
    async def work() -> None:
        loop.cancel()
        raise error

    assert run(loop, work) is error
    with pytest.raises(Stopped):
        loop.sleep(3600)


def test_close_ends_tasks_and_generators_in_the_loop(loop: EventLoop) -> None:
    ended: list[str] = []

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("generator")

    async def forever() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("task")

    async def work() -> None:
        await asyncio.to_thread(ended.append, "thread")
        kept.extend([asyncio.create_task(forever()), numbers()])
        await kept[1].__anext__()

    kept: list[Any] = []
    loop.run(work)
    loop.close()
    loop.cancel()

    assert ended == ["thread", "task", "generator"]
    assert loop.awaited() == ""
