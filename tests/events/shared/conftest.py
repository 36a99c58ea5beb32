from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis

from daemonkit.events.codec import decode_lines, normalize
from daemonkit.events.entry import Batch, Entry, FailedAttempt
from daemonkit.events.shared.queue import SharedQueue
from daemonkit.events.waiting import QueueClosed

from ...engines import Engine
from .loops import Loop

TIMEOUT = 20.0


@pytest.fixture
def client(engine: Engine) -> Iterator[redis.Redis]:
    with engine.client(decode_responses=True) as client:
        yield client


class Node:
    """A queue with its loop, and a handler's thread if it is wanted."""

    def __init__(self, address: str, **options: Any) -> None:
        self.loop = Loop()
        self._is_closed = False
        self.logger = logging.getLogger("node")
        self.handled: list[Any] = []
        self.queue: SharedQueue = None  # type: ignore[assignment]
        try:
            self.queue = SharedQueue(
                address, self.logger, **{"name": "app", "timeout": 2.0, **options}
            )
        except BaseException:
            self.loop.close()
            raise
        self._threads: list[threading.Thread] = []

    def start(self) -> Node:
        self.queue.use_loop(self.loop)
        self.queue.start()
        return self

    def put(self, *events: Any, source: Any = "app") -> None:
        self.queue.put_many(batch(*events)._replace(source=source))

    def has_handled(self, count: int) -> bool:
        """Whether so many events are handled."""
        return len(self.handled) >= count

    def handle(self, handler: Callable[[Any], object] = lambda event: None) -> None:
        """Handle events on a thread; an exception is a failure, retried after 0.05 s, once."""

        def work() -> None:
            while True:
                try:
                    entry = self.queue.get()
                except QueueClosed:
                    return
                try:
                    handler(entry.event)
                except Exception as error:
                    failure = failed(entry, error)
                    self.queue.fail(entry, failure, 0.05 if entry.attempt == 1 else None)
                else:
                    self.handled.append(entry.event)
                    self.queue.done([entry])

        thread = threading.Thread(target=work)
        thread.start()
        self._threads.append(thread)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self.queue is not None:
            self.queue.request_stop()
            for thread in self._threads:
                thread.join(TIMEOUT)
            assert self.queue.join(TIMEOUT)
        self.loop.close()


def batch(*events: Any) -> Batch:
    """Events as they are put."""
    lines = [normalize(event).lines[0] for event in events]
    return Batch(list(decode_lines(b"\n".join(lines)).events), lines, "app")


def failed(entry: Entry, error: Exception) -> FailedAttempt:
    """What the processor says of a failed event."""
    now = time.time()
    return FailedAttempt(
        f"{type(error).__name__}: {error}", "the traceback", entry.attempt, now, now
    )


def wait_until(condition: Callable[[], Any], what: str = "the condition") -> Any:
    """Wait until it is true, and return it."""
    until = time.monotonic() + TIMEOUT
    while not (result := condition()):
        assert time.monotonic() < until, what
        time.sleep(0.005)
    return result


NodeMaker = Callable[..., Node]


@pytest.fixture
def make_node(engine: Engine) -> Iterator[Callable[..., Node]]:
    """Makes nodes of the engine, or of another one."""
    with ExitStack() as stack:

        def make(address: str | None = None, **options: Any) -> Node:
            node = Node(address or engine.address(), **options)
            stack.callback(node.close)
            return node.start()

        yield make


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()
