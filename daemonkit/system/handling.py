"""What a thread is handling, for the lines that it logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

NOTHING = object()
_THREAD = threading.local()


class Handled(NamedTuple):
    """The event or the batch that a thread is handling.

    first, last: ids, the same for a single event; sender: the name of the token that all came with.
    """

    first: int
    last: int
    sender: str | None

    def suffix(self) -> str:
        """For a line of text."""
        ids = f"event {self.first}"
        if self.last != self.first:
            ids = f"events {self.first} to {self.last}"
        return f" [{ids}]" if self.sender is None else f" [{ids} from {self.sender}]"

    def fields(self) -> dict[str, Any]:
        """For a line of JSON."""
        last = {} if self.last == self.first else {"last_event": self.last}
        sender = {} if self.sender is None else {"sender": self.sender}
        return {"event": self.first, **last, **sender}


class Handling:
    """What one thread is handling; `taken` is all that is set for each event."""

    taken: Any = NOTHING

    def attach(self) -> None:
        """Have the lines of the calling thread show this from now on."""
        _THREAD.handling = self

    def pause(self) -> None:
        """Note that nothing is being handled."""
        self.taken = NOTHING

    def describe(self) -> Handled:
        """Describe what was taken; called only for lines of the log."""
        raise NotImplementedError


def handled_now() -> Handled | None:
    """What the calling thread is handling."""
    handling: Handling | None = getattr(_THREAD, "handling", None)
    return None if handling is None or handling.taken is NOTHING else handling.describe()


class _Noted(Handling):
    def describe(self) -> Handled:
        noted: Handled = self.taken
        return noted


@contextmanager
def noted(handled: Handled | None) -> Iterator[None]:
    """Have the lines that the calling thread logs in the block show this, and nothing else."""
    before = getattr(_THREAD, "handling", None)
    _THREAD.handling = now = _Noted()
    if handled is not None:
        now.taken = handled
    try:
        yield
    finally:
        _THREAD.handling = before


def pause() -> None:
    """Note that the calling thread is handling nothing: it waits, for example."""
    handling: Handling | None = getattr(_THREAD, "handling", None)
    if handling is not None:
        handling.pause()
