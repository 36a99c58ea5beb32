from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from daemonkit import EventMeta
from daemonkit.events.entry import (
    NO_RETRIES,
    Batch,
    Entry,
    FailedAttempt,
    RetryPolicy,
    failure_of,
    meta_of,
)
from daemonkit.types import Origin

THEN = datetime(2017, 7, 14, 2, 40, tzinfo=timezone.utc)


def test_a_part_of_a_batch_keeps_its_circumstances() -> None:
    batch = Batch([1, 2, 3], [b"1", b"2", b"3"], "udp", ["a", "b", "c"])

    assert batch.part(1, 3) == Batch([2, 3], [b"2", b"3"], "udp", ["b", "c"])
    assert batch._replace(origins=None).part(0, 1) == Batch([1], [b"1"], "udp", None)


def test_selected_events_of_a_batch_keep_their_circumstances() -> None:
    batch = Batch([1, 2, 3], [b"1", b"2", b"3"], "udp", list(map(Origin, ["a:1", "b:2", "c:3"])))

    assert batch.selected([True, False, True]) == Batch(
        [1, 3], [b"1", b"3"], "udp", list(map(Origin, ["a:1", "c:3"]))
    )
    assert Batch([1, 2]).selected([False, True]) == Batch([2], [])


def test_the_meta_of_an_event_has_its_time_in_utc() -> None:
    assert meta_of("http", Origin("a:1", "x"), 1_500_000_000, 2) == EventMeta(
        "http", "a:1", THEN, 2, "x"
    )


def test_a_failure_is_described_with_its_secrets_hidden() -> None:
    before = datetime.now(timezone.utc)
    try:
        raise ValueError("no: s3cret")
    except ValueError as error:
        failure = failure_of(error, Entry(1), lambda text: text.replace("s3cret", "***"))

    assert (failure.error, failure.attempts) == ("ValueError: no: ***", 1)
    assert failure.traceback.endswith("ValueError: no: ***\n")
    assert before <= failure.first == failure.last <= datetime.now(timezone.utc)


def test_a_failure_of_a_retry_keeps_the_time_of_the_first() -> None:
    entry = Entry(1, attempt=3, failed=1_500_000_000.0)
    failure = failure_of(ValueError("no"), entry, str)

    assert (failure.attempts, failure.first_failed) == (3, 1_500_000_000.0)
    assert failure.last_failed > failure.first_failed


def test_the_times_of_a_failure_are_aware() -> None:
    failure = FailedAttempt("no", "", 2, 1_500_000_000.0, 1_500_000_001.5)

    assert (failure.first, failure.last) == (THEN, THEN + timedelta(seconds=1.5))
    assert failure.first.tzinfo is failure.last.tzinfo is timezone.utc


def test_the_wait_is_doubled_up_to_the_longest() -> None:
    policy = RetryPolicy(20, 1.5, 10.0)

    assert [policy.delay(n) for n in (1, 2, 3, 4, 20)] == [1.5, 3.0, 6.0, 10.0, 10.0]
    assert policy.delay(21) is None


@pytest.mark.parametrize("attempts", [13, 10**6])
def test_by_default_the_longest_wait_is_an_hour(attempts: int) -> None:
    assert RetryPolicy(10**6, 1.0).delay(attempts) == 3600


def test_by_default_nothing_is_retried() -> None:
    assert NO_RETRIES.delay(1) is None
