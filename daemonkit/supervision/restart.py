"""Whether and when a slave is restarted: policy, back-off and restart intensity."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from ..exceptions import RegistrationError
from ..runtime.clock import monotonic
from ..text import describe, timestamp

ON_FAILURE, ALWAYS, NEVER = "on-failure", "always", "never"
LONGEST_BACKOFF = 60.0
"""Seconds: the longest wait by default."""
MAX_DOUBLINGS = 60
"""Keeps the power of two finite; the longest wait is reached earlier."""
JITTER = 0.5
"""Part of the back-off that is added at most, so that slaves that failed together don't restart
together. With the defaults a crash loop gives up after at most 46.5 s of waiting."""

KEPT_RESTARTS = 10
"""Restarts that `/status` shows."""


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


class Intensity:
    """Counts restarts within a period, and limits them, as Erlang/OTP's supervisors do.

    most: restarts allowed within `within` seconds, None for no limit; clock: monotonic seconds.
    """

    def __init__(
        self, most: int | None, within: float, clock: Callable[[], float] = monotonic
    ) -> None:
        self._most = most
        self._within = within
        self._clock = clock
        self._recent: deque[float] = deque(maxlen=most or 0)
        """The times of the last restarts, as many as are allowed."""

    @property
    def is_exhausted(self) -> bool:
        """Whether one more restart now would be one too many."""
        if self._most is None or len(self._recent) < self._most:
            return False
        return self._most == 0 or self._recent[0] > self._clock() - self._within

    def count(self) -> None:
        """Count a restart."""
        self._recent.append(self._clock())

    def reset(self) -> None:
        """Start over, as if nothing had been counted."""
        self._recent.clear()

    def exceeded(self, whose: str = "") -> str:
        """What it says of a slave that gives up; whose: names the limit."""
        within = f"within {self._within:g} s{whose}"
        if not self._most:
            return f"no restart {within} is allowed"
        if self._most == 1:
            return f"1 restart {within} was not enough"
        return f"{self._most} restarts {within} were not enough"


class Restarts:
    """Counts the restarts of one slave, or of one group.

    The back-off is exponential with a cap. clock: monotonic seconds; chance: a number 0..1 for the
    jitter.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        clock: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._backoff = policy.backoff
        self._clock = clock
        self._chance = chance
        self._started_at = clock()
        self._in_a_row = 0
        # Excluded from the period: a long back-off must not hide a crash loop.
        self._waited = 0.0
        self.intensity = Intensity(
            policy.max_restarts, policy.within, lambda: clock() - self._waited
        )

    def started(self) -> None:
        """Record that the slave starts now."""
        self._started_at = self._clock()

    def reset(self) -> None:
        """Start over, as if there had been no restart."""
        self._in_a_row = 0
        self.intensity.reset()

    def next_delay(self) -> float:
        """Count a restart; returns the seconds to wait before it."""
        self.intensity.count()
        first, longest = self._backoff
        # A slave that ran longer than the longest wait starts over with the first one.
        if self._clock() - self._started_at > longest:
            self._in_a_row = 0
        # Leaves room for the jitter, so that even the longest waits differ.
        backoff = min(longest / (1 + JITTER), first * 2.0 ** min(self._in_a_row, MAX_DOUBLINGS))
        self._in_a_row += 1
        delay = min(longest, max(first, backoff) * (1 + JITTER * self._chance()))
        self._waited += delay
        return delay


class RestartHistory:
    """Why a slave was restarted the last times, and how often that counted."""

    def __init__(self) -> None:
        self.counted = 0
        self._reason = ""
        self._is_counted = False
        self._last: deque[dict[str, Any]] = deque(maxlen=KEPT_RESTARTS)

    def plan(self, reason: str, *, counted: bool) -> None:
        """The next run will be a restart for that reason, unless there is none."""
        self._reason, self._is_counted = reason, counted

    def started(self) -> bool:
        """Record that the next run begins; returns whether that is a restart that counts."""
        if self._reason:
            self._last.append({"time": timestamp(datetime.now()), "reason": self._reason})
        is_counted = self._is_counted
        self.counted += is_counted
        self.plan("", counted=False)
        return is_counted

    def shown(self) -> list[dict[str, Any]]:
        """The last restarts, as `/status` shows them."""
        return list(self._last)
