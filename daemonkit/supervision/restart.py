"""When a slave that ended is started again, how long that waits, and when it has given up."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..exceptions import RegistrationError
from ..text import describe

ON_FAILURE, ALWAYS, NEVER = "on-failure", "always", "never"
DOUBLINGS = 60
"""Of the back-off at most; the longest one is reached before."""
JITTER = 0.5
"""Part by which a wait may be longer than the back-off alone: slaves that failed together must not
come back together. With the defaults a crash loop has given up within 46.5 s of waiting."""


@dataclass(frozen=True)
class RestartPolicy:
    """How a slave is restarted.

    restart: "on-failure", "always" or "never"; backoff: the shortest and the longest wait before a
    restart, in seconds; max_restarts: more restarts than these, within `within` seconds of running,
    and it gives up (None: it never does).
    """

    restart: str = ON_FAILURE
    backoff: tuple[float, float] = (1.0, 60.0)
    max_restarts: int | None = 5
    within: float = 60.0

    def check(self) -> None:
        """Raise RegistrationError when a value is not of its kind."""
        if self.restart not in (ON_FAILURE, ALWAYS, NEVER):
            raise RegistrationError(
                f"restart must be {ON_FAILURE!r}, {ALWAYS!r} or {NEVER!r}, "
                f"not {describe(self.restart)}"
            )
        backoff: Any = self.backoff
        if (
            not isinstance(backoff, tuple | list)
            or len(backoff) != 2
            or not all(is_seconds(value) for value in backoff)
            or backoff[0] > backoff[1]
        ):
            raise RegistrationError(
                "backoff must be the shortest and the longest wait in seconds, as in (1, 60), "
                f"not {describe(backoff)}"
            )
        limit: Any = self.max_restarts
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
            limit = -1
        if limit is not None and limit < 0:
            raise RegistrationError(
                f"max_restarts must be an int >= 0, or None, not {describe(self.max_restarts)}"
            )
        if not is_seconds(self.within) or self.within == 0:
            raise RegistrationError(
                f"within must be a number of seconds > 0, not {describe(self.within)}"
            )


def is_seconds(value: Any) -> bool:
    """Whether `value` is a number of seconds that can be waited for."""
    return (
        not isinstance(value, bool)
        and isinstance(value, int | float)
        and 0 <= value <= threading.TIMEOUT_MAX
    )


def check_timeout(option: str, value: Any) -> None:
    """Raise RegistrationError unless `value` is a number of seconds > 0, or None."""
    if value is not None and (not is_seconds(value) or value == 0):
        raise RegistrationError(f"{option} must be a number of seconds > 0, not {describe(value)}")


class Restarts:
    """Counts the restarts of one slave: capped exponential back-off, and restart intensity as
    Erlang/OTP's supervisors have it.

    clock: monotonic seconds; chance: a number 0..1 for the jitter.
    """

    def __init__(
        self,
        policy: RestartPolicy,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._chance = chance
        self._began = clock()
        self._in_a_row = 0
        # Doesn't count as time: a longer back-off must not keep a crash loop from being one.
        self._waited = 0.0
        self._recent: deque[float] = deque()

    def began(self) -> None:
        """Note that the slave is started now."""
        self._began = self._clock()

    def wanted(self, failed: bool) -> bool:
        """Whether the policy is to restart it after a failure, or after a normal return."""
        return self._policy.restart == ALWAYS or (failed and self._policy.restart == ON_FAILURE)

    def delay(self) -> float | None:
        """Seconds to wait before the restart that is due now, or None when it has given up."""
        policy, now = self._policy, self._clock() - self._waited
        while self._recent and self._recent[0] <= now - policy.within:
            self._recent.popleft()
        if policy.max_restarts is not None and len(self._recent) >= policy.max_restarts:
            return None
        self._recent.append(now)
        shortest, longest = policy.backoff
        # Once it has lived longer than the longest wait, what ends it is a new trouble.
        if self._clock() - self._began > longest:
            self._in_a_row = 0
        # Half as much again at most, and even the longest wait differs from one to the next.
        steady = min(longest / (1 + JITTER), shortest * 2.0 ** min(self._in_a_row, DOUBLINGS))
        self._in_a_row += 1
        wait = min(longest, max(shortest, steady) * (1 + JITTER * self._chance()))
        self._waited += wait
        return wait
