"""Shared by the peers with threads: a queue, and a thread that counts its events."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any


class Consumer:
    """Counts the events put on `queue`, one by one."""

    def __init__(self) -> None:
        # By far the fastest queue of the standard library.
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.count = 0
        threading.Thread(target=self._consume, daemon=True).start()

    def _consume(self) -> None:
        get = self.queue.get
        while True:
            get()
            self.count += 1
