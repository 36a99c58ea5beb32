from __future__ import annotations

from daemonkit.runtime.ratelimit import RateLimit

from ..clock import Clock


def test_one_message_passes_and_the_others_are_counted() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    first = [limit.allow(), limit.allow(), limit.allow()]
    clock.now += 10

    assert first == [0, None, None]
    assert [limit.allow(), limit.allow()] == [2, None]


def test_the_count_starts_over_after_each_message() -> None:
    clock = Clock()
    limit = RateLimit(10, clock)
    counts = []
    for _ in range(3):
        counts.append([limit.allow(), limit.allow()])
        clock.now += 10

    assert counts == [[0, None], [1, None], [1, None]]
