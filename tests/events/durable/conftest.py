from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemonkit.events.durable import queue as queue_module
from daemonkit.events.durable.editor import Editor
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.store import Store

from .helpers import LOGGER, Open, close


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "events.db")


@pytest.fixture
def opened(path: str) -> Iterator[Open]:
    """Opens the queue after closing the open one, as a restart does."""
    queues: list[DurableQueue] = []

    def open_it(**options: Any) -> DurableQueue:
        close_all()
        with_meta = options.pop("with_meta", False)
        queue = DurableQueue(path, LOGGER, **options)
        queue.with_meta = with_meta
        queue.start()
        queues.append(queue)
        return queue

    def close_all() -> None:
        for queue in queues:
            close(queue)
        queues.clear()

    yield open_it
    close_all()


@pytest.fixture
def checks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "CHECK_INTERVAL", 0.02)


@pytest.fixture
def other(path: str, checks_often: None) -> Iterator[Callable[[], Store]]:
    """Opens the file as another process does."""
    stores: list[Store] = []

    def connect() -> Store:
        stores.append(Store(path, create=False, busy_timeout=5))
        return stores[-1]

    yield connect
    for store in stores:
        store.close()


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    """A new file, as its daemon has it open."""
    store = Store(path, create=True, busy_timeout=5)
    yield store
    store.close()


@pytest.fixture
def editor(store: Store, path: str) -> Iterator[Editor]:
    editor = Editor(path)
    yield editor
    editor.close()
