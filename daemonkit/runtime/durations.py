"""How long calls took, counted in buckets: of fixed size, whatever the number of calls."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

_STEPS = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
_DECADES = range(-6, 3)

BOUNDS = tuple(float(f"{step}e{decade}") for decade in _DECADES for step in _STEPS)
"""Upper bounds of the buckets in seconds, from a microsecond; the last bucket has none."""


class Durations:
    """Only one thread may add to it; any may read.

    counts: calls in each bucket; total: seconds of all calls.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float, calls: int = 1) -> None:
        """Count calls that took so long each."""
        self.counts[bisect_left(BOUNDS, seconds)] += calls
        self.total += seconds * calls


def added(counts: Iterable[Sequence[int]]) -> list[int]:
    """The sum of several counts, bucket by bucket."""
    return [sum(bucket) for bucket in zip(*counts, strict=True)]


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The seconds within which this share of the calls ended, interpolated; None without calls."""
    total = sum(counts)
    if not total:
        return None
    rank = share * total
    for bucket, up_to in enumerate(accumulate(counts)):
        if up_to >= rank and counts[bucket]:
            low = BOUNDS[bucket - 1] if bucket else 0.0
            high = BOUNDS[min(bucket, len(BOUNDS) - 1)]
            return low + (high - low) * (rank - (up_to - counts[bucket])) / counts[bucket]
    return BOUNDS[-1]
