"""Which nodes are dead, judged by their heartbeats on this node's own clock."""

from __future__ import annotations

from collections.abc import Mapping

LIMIT = 0.8
"""The share of `node_timeout` for which a dead node's counter stands still."""
OWN_LIMIT = 0.6
"""The share after which a node that has no answer to its own heartbeat hands nothing out: it may
soon be taken for dead."""
BEATS = 10
"""Heartbeats within `node_timeout`."""


class Census:
    """The heartbeat counters of all nodes, and since when each stands still.

    timeout: seconds, `node_timeout`.
    """

    def __init__(self, timeout: float) -> None:
        self._limit = LIMIT * timeout
        self._gap = timeout / 2
        self._seen: dict[bytes, tuple[bytes, float]] = {}
        self._last = 0.0

    def note(self, counters: Mapping[bytes, bytes], own: bytes, now: float) -> list[bytes]:
        """Note the counters as of now, in monotonic seconds; returns the nodes that are dead."""
        if now - self._last > self._gap:
            # This one was suspended, or the engine away: nothing is known of the time between.
            self._seen = {}
        self._last = now
        for node, counter in counters.items():
            if self._seen.get(node, (b"", 0.0))[0] != counter:
                self._seen[node] = counter, now
        self._seen = {node: seen for node, seen in self._seen.items() if node in counters}
        return [
            node
            for node, (_, since) in self._seen.items()
            if node != own and now - since > self._limit
        ]

    def age(self, node: bytes, now: float) -> float:
        """Seconds since a node's last heartbeat was seen."""
        return now - self._seen.get(node, (b"", now))[1]
