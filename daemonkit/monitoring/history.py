"""The last fifteen minutes of a daemon, in memory of a fixed size."""

from __future__ import annotations

import math
import os
import resource
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..runtime.clock import monotonic
from ..runtime.durations import quantile

INTERVAL = 1.0
"""Seconds between two samples."""
SAMPLES = 900
PAGE_SIZE = resource.getpagesize()


class Sample(NamedTuple):
    """What is known at one moment.

    received, refused, handled, failed: events so far; waiting: events now; oldest_age: of those, in
    seconds, None if there is none; calls: of the handler so far, in the buckets of
    `runtime.durations`.
    """

    received: int
    refused: int
    handled: int
    failed: int
    waiting: int
    oldest_age: float | None
    calls: Sequence[int]


RATES = ("received", "refused", "handled", "failed")
"""Events per second."""
QUANTILES = {"handler_median": 0.5, "handler_p99": 0.99}
SERIES = (*RATES, "waiting", "oldest_age", *QUANTILES, "cpu", "memory")


class History:
    """A ring of samples, with 8 bytes for each of SERIES: 72 kB in all.

    take: returns the present values; clock: monotonic seconds. A sample that could not be taken in
    time is missing (None).
    """

    def __init__(self, take: Callable[[], Sample], clock: Callable[[], float] = monotonic) -> None:
        self._take = take
        self._clock = clock
        self._rings = {name: array("d", [math.nan]) * SAMPLES for name in SERIES}
        self._began = self._began_at = 0.0
        self._count = 0
        """Samples so far, those that are missing included."""
        self._before: Sample | None = None
        self._before_at = self._cpu_before = 0.0

    def run_due(self, now: float) -> float:
        """Take a sample if it is time; returns when to call this again."""
        if self._before is None:
            self._began, self._began_at = now, time.time()
            self._remember(self._take(), now)
            return now + INTERVAL
        position = int((now - self._began) / INTERVAL)
        if position > self._count:
            self._add(position - 1, now)
        return self._began + (self._count + 1) * INTERVAL

    def _add(self, position: int, now: float) -> None:
        sample, before = self._take(), self._before
        assert before is not None
        seconds = now - self._before_at
        calls = [new - old for new, old in zip(sample.calls, before.calls, strict=True)]
        values: dict[str, float | None] = {
            **{n: _rate(getattr(before, n), getattr(sample, n), seconds) for n in RATES},
            "waiting": sample.waiting,
            "oldest_age": sample.oldest_age or 0.0,
            **{name: quantile(calls, share) for name, share in QUANTILES.items()},
            "cpu": (time.process_time() - self._cpu_before) / seconds,
            "memory": memory_used(),
        }
        for name, ring in self._rings.items():
            for missed in range(max(self._count, position - SAMPLES), position):
                ring[missed % SAMPLES] = math.nan
            value = values[name]
            ring[position % SAMPLES] = math.nan if value is None else value
        self._count = position + 1
        self._remember(sample, now)

    def _remember(self, sample: Sample, now: float) -> None:
        self._before, self._before_at, self._cpu_before = sample, now, time.process_time()

    def shown(self, since: float = 0.0) -> dict[str, Any]:
        """The samples after `since`, in Unix seconds by the clock when the daemon started; each
        rate is per second.

        start: when the first of them was taken.
        """
        count, began = self._count, self._began_at + INTERVAL
        first = max(0, count - SAMPLES)
        if since >= began + first * INTERVAL:
            first = min(count, int((since - began) / INTERVAL + 1e-6) + 1)
        return {
            "pid": os.getpid(),
            "interval": INTERVAL,
            "start": began + first * INTERVAL,
            "series": {
                name: [_shown(ring[n % SAMPLES]) for n in range(first, count)]
                for name, ring in self._rings.items()
            },
        }


def memory_used() -> float | None:
    """Bytes of memory that the process has (its resident set size), None where that isn't known."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return float(int(file.read().split()[1]) * PAGE_SIZE)
    except (OSError, ValueError, IndexError):
        return None


def _rate(before: int, now: int, seconds: float) -> float:
    # No more digits than the time between two samples is exact.
    return float(f"{(now - before) / seconds:.3g}")


def _shown(value: float) -> float | None:
    if math.isnan(value):
        return None
    # Six digits are plenty, and a third of the bytes.
    return float(f"{value:.6g}")
