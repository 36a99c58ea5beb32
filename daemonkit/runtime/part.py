"""The base of a part with one thread."""

from __future__ import annotations

import threading

from ..types import Problem


def thread_died(title: str, thread: threading.Thread, *, stopping: bool) -> list[Problem]:
    """The problem that a thread has ended without a stop request; title: names it in the text."""
    died = thread.ident is not None and not thread.is_alive()
    return [Problem(f"{title} is not running")] if died and not stopping else []


class ThreadedPart:
    """A `Component` that runs `_run` on one thread.

    name: also the thread's; title: names the part in a problem's text, as in "the timer".
    """

    def __init__(self, name: str, title: str) -> None:
        self.name = name
        self._title = title
        self._stop_requested = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def request_stop(self) -> None:
        """Ask the thread to stop; never blocks."""
        self._stop_requested = True

    def join(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; True when the thread has ended or never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def running_threads(self) -> list[threading.Thread]:
        """The thread, while it runs."""
        return [self._thread] if self._thread.is_alive() else []

    def problems(self) -> list[Problem]:
        """Whether the thread has died."""
        return thread_died(self._title, self._thread, stopping=self._stop_requested)

    def _run(self) -> None:
        """The thread's work, until a stop is requested."""
        raise NotImplementedError
