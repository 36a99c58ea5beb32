"""Whether and when a slave is restarted: policy, back-off and restart intensity."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from ..exceptions import RegistrationError
from ..runtime.clock import monotonic
from ..text import describe

ON_FAILURE, ALWAYS, NEVER = "on-failure", "always", "never"
LONGEST_BACKOFF = 60.0
"""Seconds: the longest wait by default."""
MAX_DOUBLINGS = 60
"""Keeps the power of two finite; the longest wait is reached earlier."""
JITTER = 0.5
"""Part of the back-off that is added at most, so that slaves that failed together don't restart
together. With the defaults a crash loop gives up after at most 46.5 s of waiting."""


class RestartPolicy(NamedTuple):
    """How a slave is restarted.

    restart: "on-failure", "always" or "never"; backoff: the first and the longest wait before a
    restart, in seconds; max_restarts: restarts allowed within `within` seconds of running before
    the slave gives up, None for no limit.
    """

    restart: str = ON_FAILURE
    backoff: tuple[float, float] = (1.0, LONGEST_BACKOFF)
    max_restarts: int | None = 5
    within: float = 60.0

    def check(self) -> None:
        """Raise RegistrationError for an invalid value; `check_backoff` checks `backoff`."""
        if self.restart not in (ON_FAILURE, ALWAYS, NEVER):
            raise RegistrationError(
                f"restart must be {ON_FAILURE!r}, {ALWAYS!r} or {NEVER!r}, "
                f"not {describe(self.restart)}"
            )
        limit: Any = self.max_restarts
        if limit is not None and (
            isinstance(limit, bool) or not isinstance(limit, int) or limit < 0
        ):
            raise RegistrationError(
                f"max_restarts must be an int >= 0, or None, not {describe(limit)}"
            )
        if not is_seconds(self.within) or self.within == 0:
            raise RegistrationError(
                f"within must be a number of seconds > 0, not {describe(self.within)}"
            )

    def restarts_after(self, failed: bool) -> bool:
        """Whether a slave that failed, or that returned, is restarted."""
        return self.restart == ALWAYS or (failed and self.restart == ON_FAILURE)


def is_seconds(value: Any) -> bool:
    """Whether `value` is a number of seconds that a thread can wait."""
    return (
        not isinstance(value, bool)
        and isinstance(value, int | float)
        and 0 <= value <= threading.TIMEOUT_MAX
    )


def check_timeout(option: str, value: Any) -> None:
    """Raise RegistrationError unless `value` is a number of seconds > 0, or None."""
    if value is not None and (not is_seconds(value) or value == 0):
        raise RegistrationError(f"{option} must be a number of seconds > 0, not {describe(value)}")


def check_backoff(option: str, value: Any, longest: float = LONGEST_BACKOFF) -> tuple[float, float]:
    """The first and the longest wait in seconds, from a number (the first) or a pair.

    longest: goes with a number, unless that is larger. Raises RegistrationError.
    """
    pair = value
    if is_seconds(value):
        pair = value, max(value, longest)
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(map(is_seconds, pair)):
        first, last = pair
        if first <= last:
            return first, last
    raise RegistrationError(
        f"{option} must be a number of seconds, or the first and the longest wait, "
        f"as in (1, 60), not {describe(value)}"
    )


class Restarts:
    """Counts the restarts of one slave.

    The back-off is exponential with a cap; the restart intensity is limited as by Erlang/OTP's
    supervisors. clock: monotonic seconds; chance: a number 0..1 for the jitter.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        clock: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._started_at = clock()
        self._in_a_row = 0
        # Excluded from the window: a long back-off must not hide a crash loop.
        self._waited = 0.0
        self._recent: deque[float] = deque()

    def started(self) -> None:
        """Record that the slave starts now."""
        self._started_at = self._clock()

    @property
    def is_exhausted(self) -> bool:
        """Whether one more restart now would exceed the restart intensity."""
        policy, window_start = self._policy, self._now() - self._policy.within
        if policy.max_restarts is None:
            return False
        return sum(at > window_start for at in self._recent) >= policy.max_restarts

    def next_delay(self) -> float:
        """Count a restart; returns the seconds to wait before it."""
        now = self._now()
        while self._recent and self._recent[0] <= now - self._policy.within:
            self._recent.popleft()
        self._recent.append(now)
        first, longest = self._policy.backoff
        # A slave that ran longer than the longest wait starts over with the first one.
        if self._clock() - self._started_at > longest:
            self._in_a_row = 0
        # Leaves room for the jitter, so that even the longest waits differ.
        backoff = min(longest / (1 + JITTER), first * 2.0 ** min(self._in_a_row, MAX_DOUBLINGS))
        self._in_a_row += 1
        delay = min(longest, max(first, backoff) * (1 + JITTER * self._chance()))
        self._waited += delay
        return delay

    def _now(self) -> float:
        return self._clock() - self._waited
