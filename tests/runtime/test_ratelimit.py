from __future__ import annotations

from daemonkit.runtime.ratelimit import RateLimit


def test_a_rate_limit_lets_one_through_and_counts_the_others() -> None:
    now = 0.0
    limit = RateLimit(10, clock=lambda: now)
    first = [limit.allow(), limit.allow(), limit.allow()]
    now = 10.0

    assert first == [0, None, None]
    assert [limit.allow(), limit.allow()] == [2, None]
