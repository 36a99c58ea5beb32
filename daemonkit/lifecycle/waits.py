"""What starting or stopping is waiting for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Waits:
    """What each thread that starts or stops the daemon waits for.

    changed: called whenever that changes.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._by_thread: dict[int, Callable[[], list[str]]] = {}

    @contextmanager
    def waiting_for(self, what: str | Callable[[], list[str]]) -> Iterator[None]:
        """Show `what` while the calling thread is in the `with` block; a function is asked each
        time."""
        thread = threading.get_ident()
        outer = self._by_thread.get(thread, list)
        self._by_thread[thread] = (lambda: [what]) if isinstance(what, str) else what
        self._changed()
        try:
            yield
        finally:
            self._by_thread[thread] = outer
            self._changed()

    def shown(self) -> list[str]:
        """What is waited for now."""
        return [what for ask in list(self._by_thread.values()) for what in ask()]
