"""The base of a part with one thread."""

from __future__ import annotations

import threading

from ..types import Problem


class ThreadedPart:
    """A `Component` that runs `_run` on one thread.

    name: also the thread's; title: names the part in a problem's text, as in "the timer".
    """

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self._title = title
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request_stop(self) -> None:
        """Ask the thread to stop; never blocks."""
        self._stop_requested.set()

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; True when the thread has ended or never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        """The thread, while it runs."""
        return [self._thread] if self._thread.is_alive() else []

    @property
    def is_current_thread(self) -> bool:
        """Whether this is called on its thread."""
        return threading.current_thread() is self._thread

    def problems(self) -> list[Problem]:
        """A problem if the thread has ended without a stop request."""
        died = self._thread.ident is not None and not self._thread.is_alive()
        wanted = not self._stop_requested.is_set()
        return [Problem(f"{self._title} is not running")] if died and wanted else []

    def _run(self) -> None:
        """The thread's work, until a stop is requested."""
        raise NotImplementedError
