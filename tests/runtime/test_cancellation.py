from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit.runtime.cancellation import Place
from daemonkit.runtime.eventloop import EventLoop, Stopped
from daemonkit.runtime.forks import ForkGuard

LONG = 3600.0
"""Seconds to stop: within a test's time, only what is seen to go on is cancelled again."""
SHORT = 2.0
FILLING: list[asyncio.Task[None]] = []
"""Keeps the tasks: the loop has only weak references to them."""


@pytest.fixture
def loop() -> Iterator[EventLoop]:
    loop = EventLoop(ForkGuard())
    yield loop
    loop.close()


def stop(loop: EventLoop, work: Callable[[], Any], timeout: float) -> float:
    """Run `work`, cancel it once it has begun, and return how long that took."""
    begun = threading.Event()
    began: list[float] = []

    def cancel() -> None:
        begun.wait()
        began.append(time.monotonic())
        loop.cancel(timeout)

    async def whole() -> None:
        asyncio.get_running_loop().call_later(0.01, begun.set)
        await work()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        with pytest.raises(Stopped):
            loop.run(whole)
    finally:
        loop.close()
        thread.join()
    return time.monotonic() - began[0]


async def full_queue() -> asyncio.Queue[int]:
    """A queue that is filled as fast as it is read."""
    queue: asyncio.Queue[int] = asyncio.Queue(100)

    async def fill() -> None:
        while True:
            await queue.put(1)

    FILLING.append(asyncio.create_task(fill()))
    await asyncio.sleep(0.001)
    return queue


async def consume() -> None:
    queue = await full_queue()
    while True:
        await asyncio.wait_for(queue.get(), 1)


async def old_wait_for(awaitable: Any, timeout: float) -> Any:
    """As before Python 3.12: it ignores the cancellation if the result is there."""
    waiter = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(awaitable)
    task.add_done_callback(lambda _: waiter.done() or waiter.set_result(None))
    try:
        await waiter
    except asyncio.CancelledError:
        if task.done():
            return task.result()
        task.cancel()
        raise
    return task.result()


async def consume_as_of_old() -> None:
    queue = await full_queue()
    while True:
        await old_wait_for(queue.get(), 1)


async def consume_and_work() -> None:
    queue = await full_queue()
    while True:
        await old_wait_for(queue.get(), 1)
        await asyncio.sleep(0)


async def consume_in_tasks() -> None:
    await asyncio.gather(consume_as_of_old(), consume_as_of_old())


def swallow(times: int, kind: type[BaseException] = BaseException) -> Callable[[], Any]:
    async def work() -> None:
        left = times
        while True:
            try:
                await asyncio.sleep(LONG)
            except kind:
                left -= 1
                if left < 0:
                    raise

    return work


@pytest.mark.parametrize(
    "work",
    [
        consume,
        consume_as_of_old,
        consume_and_work,
        swallow(1),
        swallow(2),
        swallow(5, asyncio.CancelledError),
        swallow(1, Exception),
    ],
    ids=["queue", "old", "works", "once", "twice", "five", "exceptions"],
)
def test_a_coroutine_that_goes_on_after_its_cancellation_is_cancelled_again(
    loop: EventLoop, work: Callable[[], Any]
) -> None:
    assert stop(loop, work, LONG) < LONG


def test_so_are_tasks_that_it_waits_for_once_half_of_the_time_has_passed(loop: EventLoop) -> None:
    assert stop(loop, consume_in_tasks, SHORT) < LONG


def test_a_remaining_task_that_goes_on_after_its_cancellation_is_cancelled_again(
    loop: EventLoop,
) -> None:
    kept: list[asyncio.Task[None]] = []

    async def work() -> None:
        kept.append(asyncio.create_task(consume_as_of_old()))
        await asyncio.sleep(LONG)

    stop(loop, work, LONG)

    assert kept[0].cancelled()


@pytest.mark.parametrize("kind", ["finally", "except", "steps", "task", "context", "old"])
def test_a_coroutine_that_cleans_up_is_not_interrupted(loop: EventLoop, kind: str) -> None:
    cleaned: list[str] = []

    async def clean() -> None:
        # Longer than several checks.
        for _ in range(10):
            await asyncio.sleep(0.05)
        cleaned.append(kind)

    class Context:
        async def __aenter__(self) -> None: ...

        async def __aexit__(self, *_: object) -> None:
            await clean()

    async def hang() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await clean()

    async def work() -> None:
        if kind == "task":
            await asyncio.create_task(hang())
        elif kind == "context":
            async with Context():
                await asyncio.sleep(LONG)
        elif kind == "except":
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                await clean()
                raise
        elif kind == "old":
            try:
                await swallow(1)()
            finally:
                await old_wait_for(clean(), LONG)
        else:
            await hang()

    stop(loop, work, LONG)

    assert cleaned == [kind]


def test_helpers_of_a_clean_up_keep_running(loop: EventLoop) -> None:
    flushed: list[int] = []

    async def work() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue()

        async def flush() -> None:
            while True:
                flushed.append(await queue.get())
                queue.task_done()

        helper = asyncio.create_task(flush())
        try:
            await swallow(1)()
        finally:
            for number in range(3):
                await asyncio.sleep(0.05)
                queue.put_nowait(number)
            await queue.join()
            assert not helper.done()

    stop(loop, work, LONG)

    assert flushed == [0, 1, 2]


def test_a_clean_up_may_use_half_of_the_time_and_is_then_interrupted(loop: EventLoop) -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            try:
                await asyncio.sleep(LONG)
            finally:
                ended.append("again")

    took = stop(loop, work, SHORT)

    assert ended == ["again"]
    assert took >= SHORT / 2


def test_a_later_deadline_applies_to_tasks_that_are_already_being_cancelled(
    loop: EventLoop,
) -> None:
    ended = []

    async def clean() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            loop.cancel(0.2)
            try:
                await asyncio.sleep(LONG)
            finally:
                ended.append("again")

    async def work() -> None:
        kept.append(asyncio.create_task(clean()))
        await asyncio.sleep(0)

    kept: list[Any] = []
    loop.run(work)
    loop.close()

    assert ended == ["again"]


def test_a_place_names_coroutines_generators_and_async_generators() -> None:
    async def numbers() -> Any:
        await asyncio.sleep(LONG)
        yield 1

    class Old:
        def __await__(self) -> Any:
            yield from asyncio.get_running_loop().create_future()

    async def look(awaitable: Callable[[], Any]) -> list[str]:
        async def work() -> None:
            await awaitable()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        names = [code.co_name for code, _ in Place.of(task).frames]
        task.cancel()
        return names

    assert asyncio.run(look(Old)) == ["work", "__await__"]
    assert asyncio.run(look(lambda: asyncio.sleep(LONG))) == ["work", "sleep"]
    assert asyncio.run(look(lambda: numbers().__anext__()))[0] == "work"
