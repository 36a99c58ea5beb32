"""A clock that a test moves by hand."""

from __future__ import annotations


class Clock:
    """A call returns its seconds."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
