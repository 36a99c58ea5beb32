"""Reports what is wrong with the engine: in the log, to the health check, and as refusals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from redis import exceptions

from ...exceptions import QueueFull, Unavailable
from ...runtime.clock import monotonic
from ...types import Problem
from ..fault import Fault
from .engine import EngineAway, translated

PUTS, KEEPER, FETCHER = "puts", "keeper", "fetcher"
"""The connections."""
RETRY_AFTER = 1
"""Seconds, for those whose events are refused."""


class EngineFaults:
    """The faults of one engine.

    shown: its address, for people; changed: called when a fault begins or ends.
    """

    def __init__(self, shown: str, logger: logging.Logger, changed: Callable[[], None]) -> None:
        self._shown = shown
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        """Since when the engine is away, for each of the connections for which it is."""
        self._away = Fault(logger, f"The event queue's engine {shown} is there again", changed)
        self._full = Fault(logger, "The event queue's engine has memory again", changed, QueueFull)
        self.lacks_replicas = False
        """Whether fewer replicas are connected than must confirm."""
        self._unconfirmed = Fault(logger, "The event queue's replicas confirm again", changed)

    def problems(self) -> list[Problem]:
        """For the health check."""
        faults = (self._away, self._full, self._unconfirmed)
        return [fault.problem for fault in faults if fault.problem is not None]

    @property
    def outage(self) -> str:
        """Why nothing can be put now, "" if it can."""
        faults = (self._away, self._full, *([self._unconfirmed] if self.lacks_replicas else []))
        return next((fault.problem.text for fault in faults if fault.problem is not None), "")

    @property
    def is_away(self) -> bool:
        """Whether any connection can't be used."""
        return bool(self._since)

    def away_for(self, connection: str) -> float:
        """Seconds since one of the connections could be used, 0 if it can."""
        since = self._since.get(connection)
        return 0.0 if since is None else monotonic() - since

    def away(self, error: Exception, connection: str) -> None:
        """The engine can't be used on this connection: PUTS, KEEPER or FETCHER."""
        reason = error if isinstance(error, EngineAway) else _reason(error)
        with self._lock:
            self._since.setdefault(connection, monotonic())
            # One of them speaks for all: each may have a reason of its own.
            if connection == next(iter(self._since)):
                self._away.report(
                    f"the event queue's engine {self._shown} is away: {reason}", tolerable=True
                )

    def works(self, connection: str) -> None:
        """The engine has done what was asked on this connection."""
        if connection in self._since:
            with self._lock:
                self._since.pop(connection, None)
                if not self._since:
                    self._away.end()

    def stored(self, *, confirmed: bool) -> None:
        """The engine has stored something; confirmed: so have the replicas that must."""
        self.works(PUTS)
        self._full.end()
        if confirmed and not self.lacks_replicas:
            self._unconfirmed.end()

    def has_memory(self) -> None:
        """The engine says that it has."""
        self._full.end()

    @property
    def is_full(self) -> bool:
        """Whether the engine had no memory for events."""
        return self._full.problem is not None

    def refusal(self) -> Unavailable:
        """Refuses events while the engine is away, or lacks replicas."""
        text = self.outage or "the event queue is away"
        return Unavailable(_sentence(text), RETRY_AFTER)

    def full(self) -> Unavailable:
        """The engine has no memory for events; returns their refusal."""
        return self._full.report(
            f"the memory of the event queue's engine {self._shown} is full (maxmemory)",
            tolerable=True,
        )

    @property
    def doubts_replicas(self) -> bool:
        """Whether replicas may be missing."""
        return self._unconfirmed.problem is not None

    def replicas(self, connected: int, wanted: int) -> None:
        """How many replicas the engine has, and how many must confirm."""
        lacked, self.lacks_replicas = self.lacks_replicas, connected < wanted
        if self.lacks_replicas:
            self._unconfirmed.report(
                f"{connected} instead of {wanted} replicas are connected to the event queue's "
                f"engine {self._shown} (confirm.replicas)",
                tolerable=True,
            )
        elif lacked:
            self._unconfirmed.end()

    def too_few_replicas(self, confirmed: int, wanted: int) -> Unavailable:
        """An event isn't on as many replicas as it should be; returns its refusal."""
        return self._unconfirmed.report(
            f"{confirmed} instead of {wanted} replicas of the event queue's engine {self._shown} "
            "have confirmed an event (confirm.replicas)",
            tolerable=True,
        )


def _reason(error: Exception) -> object:
    if isinstance(error, exceptions.RedisError | OSError):
        return translated(error)
    return f"{type(error).__name__}: {error}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
