from __future__ import annotations

from datetime import datetime, timezone

from daemonkit import EventMeta

RECEIVED = datetime(2017, 7, 14, tzinfo=timezone.utc)


def test_the_circumstances_of_an_event_are_those_of_each_attempt_but_for_its_number() -> None:
    meta = EventMeta("udp", "a:1", RECEIVED)

    assert meta.attempt == 1
    assert meta.of_attempt(3) == EventMeta("udp", "a:1", RECEIVED, 3)
