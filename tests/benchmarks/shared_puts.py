"""Libraries on one engine: `python -m tests.benchmarks.shared_puts WHOSE put|handle ADDRESS AMOUNT`.

`put`: 8 threads (or tasks) put one event at a time for AMOUNT seconds, each confirmed by the engine
when the call returns; prints the puts per second. `handle`: AMOUNT events wait, and are handled by 8
threads (or tasks) that do nothing; prints the events per second from the first to the last.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from daemonkit import Daemon
from daemonkit.events.shared.editor import SharedEditor
from daemonkit.testing import running

from .load import EVENT

THREADS = 8
AT_ONCE = 50
"""Puts of a task-based library that are under way together; it has a hundred connections."""


class Handled:
    """When the first and the last event was handled."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._count = count
        self._began = 0.0
        self._lock = threading.Lock()
        self.over = threading.Event()
        self.rate = 0.0

    def note(self) -> None:
        with self._lock:
            if self._left == self._count:
                self._began = time.perf_counter()
            self._left -= 1
            if not self._left:
                self.rate = (self._count - 1) / (time.perf_counter() - self._began)
                self.over.set()

    def wait(self) -> float:
        if not self.over.wait(120):
            sys.exit(f"{self._left} events are left")
        return self.rate


def put_rate(put: Callable[[], object], seconds: float) -> float:
    """Puts per second of all threads."""
    puts, ends = [0] * THREADS, [0.0] * THREADS
    together = threading.Barrier(THREADS + 1)

    def work(number: int) -> None:
        done = 0
        together.wait()
        while time.perf_counter() < until:
            put()
            done += 1
        puts[number], ends[number] = done, time.perf_counter()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    until = (began := time.perf_counter()) + seconds
    together.wait()
    for thread in threads:
        thread.join()
    return sum(puts) / (max(ends) - began)


@contextmanager
def _daemon(address: str, handler: Callable[[Any], object]) -> Iterator[Daemon]:
    app = Daemon("benchmark")
    app.on_event(threads=THREADS)(handler)
    master = {"queue": address, "queue_size": 10_000_000, "log_level": "ERROR"}
    with running(app, {"master": master}):
        yield app


def daemonkit_put(address: str, seconds: float) -> float:
    with _daemon(address, lambda event: None) as app:
        return put_rate(lambda: app.put_event({"Hello": "World"}), seconds)


def daemonkit_handle(address: str, count: int) -> float:
    editor = SharedEditor(f"{address}?name=benchmark", create=True)
    for _ in range(count):
        editor.add([EVENT])
    editor.close()
    handled = Handled(count)
    with _daemon(address, lambda event: handled.note()):
        return handled.wait()


def _huey(address: str, handler: Callable[[], object]) -> Any:
    from huey import RedisHuey  # noqa: PLC0415

    huey = RedisHuey("benchmark", url=address, results=False)
    return huey, huey.task()(lambda event: handler())


def huey_put(address: str, seconds: float) -> float:
    _, task = _huey(address, lambda: None)
    return put_rate(lambda: task({"Hello": "World"}), seconds)


def huey_handle(address: str, count: int) -> float:
    handled = Handled(count)
    huey, task = _huey(address, handled.note)
    for _ in range(count):
        task({"Hello": "World"})
    logging.disable()
    consumer = huey.create_consumer(workers=THREADS, worker_type="thread", periodic=False)
    consumer.start()
    rate = handled.wait()
    consumer.stop(graceful=False)
    return rate


def _dramatiq(address: str, handler: Callable[[], object]) -> Any:
    import dramatiq  # noqa: PLC0415
    from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415

    broker = RedisBroker(url=address)
    dramatiq.set_broker(broker)
    return broker, dramatiq.actor(lambda event: handler(), actor_name="handle", broker=broker)


def dramatiq_put(address: str, seconds: float) -> float:
    _, actor = _dramatiq(address, lambda: None)
    return put_rate(lambda: actor.send({"Hello": "World"}), seconds)


def dramatiq_handle(address: str, count: int) -> float:
    import dramatiq  # noqa: PLC0415

    handled = Handled(count)
    broker, actor = _dramatiq(address, handled.note)
    for _ in range(count):
        actor.send({"Hello": "World"})
    worker = dramatiq.Worker(broker, worker_threads=THREADS)
    worker.start()
    rate = handled.wait()
    worker.stop()
    return rate


def _faststream(address: str) -> Any:
    from faststream.redis import RedisBroker  # noqa: PLC0415

    return RedisBroker(address, logger=None)


def faststream_put(address: str, seconds: float) -> float:
    async def work() -> float:
        async with _faststream(address) as broker:
            until = (began := time.perf_counter()) + seconds

            async def put() -> int:
                done = 0
                while time.perf_counter() < until:
                    await broker.publish({"Hello": "World"}, stream="benchmark")
                    done += 1
                return done

            puts = await asyncio.gather(*(put() for _ in range(THREADS)))
            return sum(puts) / (time.perf_counter() - began)

    return asyncio.run(work())


def faststream_handle(address: str, count: int) -> float:
    from faststream.redis import StreamSub  # noqa: PLC0415

    handled = Handled(count)

    async def work() -> float:
        broker = _faststream(address)
        # As many as we take at once; each is acknowledged by itself.
        sub = StreamSub("benchmark", group="g", consumer="c", last_id=">", max_records=64)

        @broker.subscriber(stream=sub, max_workers=THREADS)
        async def handle(event: Any) -> None:
            handled.note()

        await broker.connect()
        client = broker._connection
        await client.xgroup_create("benchmark", "g", "0", mkstream=True)
        for _ in range(0, count, AT_ONCE):
            await asyncio.gather(
                *(broker.publish({"Hello": "World"}, stream="benchmark") for _ in range(AT_ONCE))
            )
        await broker.start()
        rate = await asyncio.to_thread(handled.wait)
        await broker.stop()
        return rate

    return asyncio.run(work())


WAYS: dict[str, Callable[[str, Any], float | Awaitable[float]]] = {
    "daemonkit put": daemonkit_put,
    "daemonkit handle": daemonkit_handle,
    "huey put": huey_put,
    "huey handle": huey_handle,
    "dramatiq put": dramatiq_put,
    "dramatiq handle": dramatiq_handle,
    "faststream put": faststream_put,
    "faststream handle": faststream_handle,
}


if __name__ == "__main__":
    whose, what, where, amount = sys.argv[1:]
    print(WAYS[f"{whose} {what}"](where, float(amount) if what == "put" else int(amount)))
