from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import pytest

from daemonkit.events.durable import group_commit
from daemonkit.events.durable.group_commit import GroupCommit, OwnedLock, Pending, merged
from daemonkit.events.entry import Batch

from .helpers import Open, batch, events_of, rows, take, until


def test_threads_that_put_at_the_same_time_share_commits(opened: Open) -> None:
    queue = opened()
    commits: list[str] = []
    queue._file.store.db.set_trace_callback(commits.append)
    threads = [
        threading.Thread(target=lambda: [queue.put_many(batch(n)) for n in range(50)])
        for _ in range(8)
    ]
    with queue._lock:
        for thread in threads:
            thread.start()
        until(lambda: len(queue) == 8)
    for thread in threads:
        thread.join()

    assert len(queue) == 400
    assert commits[0].startswith("INSERT")
    assert len(commits) < 400


def test_a_thread_that_is_interrupted_leaves_the_writing_to_the_next(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened()
    real, interrupted = queue._group._gather, []

    def gather() -> None:
        if not interrupted:
            interrupted.append(True)
            # Until another thread waits.
            until(lambda: len(queue._group.puts) == 2)
            raise KeyboardInterrupt
        real()

    monkeypatch.setattr(queue._group, "_gather", gather)

    def put(event: int) -> None:
        with suppress(KeyboardInterrupt):
            queue.put_many(batch(event))

    threads = [threading.Thread(target=put, args=(n,)) for n in (1, 2)]
    threads[0].start()
    until(lambda: interrupted)
    threads[1].start()
    for thread in threads:
        thread.join(10)

    assert len(queue) == 1
    assert queue.get().event == 2
    queue.put_many(batch(3))


def test_a_commit_waits_a_moment_for_threads_that_shared_the_last_one(opened: Open) -> None:
    queue = opened()
    queue._group._last = 2
    began = time.monotonic()
    queue.put_many(batch(1))
    assert time.monotonic() - began >= group_commit.GATHERING
    queue._group._last = 2
    commits: list[str] = []
    queue._file.store.db.set_trace_callback(commits.append)
    other = threading.Thread(target=lambda: queue.put_many(batch(2)))
    with queue._lock:
        writer = threading.Thread(target=lambda: queue.put_many(batch(3)))
        writer.start()
        until(lambda: queue._group.puts)
        other.start()
        until(lambda: len(queue._group.puts) == 2)
    for thread in (writer, other):
        thread.join(10)

    assert len(commits) == 1


def test_events_put_by_several_threads_are_all_there_and_in_each_thread_s_order(
    opened: Open,
) -> None:
    queue = opened()

    def put(thread: int) -> None:
        for number in range(0, 60, 3):
            queue.put_many(batch(*([thread, number + n] for n in range(3))))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = events_of(take(queue, 240))

    for thread_number in range(4):
        assert [n for t, n in events if t == thread_number] == list(range(60))


def test_more_events_than_fit_into_a_batch_are_split(opened: Open, path: str) -> None:
    queue = opened()
    queue.put_many(batch(*range(2500)))

    assert rows(path, "SELECT count FROM batches") == [(1000,), (1000,), (500,)]
    assert events_of(take(opened(), 2500)) == list(range(2500))


def test_a_lone_writer_does_not_wait() -> None:
    commits: list[int] = []

    def write(puts: Sequence[Pending]) -> None:
        commits.append(len(puts))
        with group.lock:
            group.settle(puts, None)

    group = GroupCommit(write, OwnedLock())
    # What it waits on, if it waits for others.
    group._complete.wait = pytest.fail  # type: ignore[assignment]
    for _ in range(3):
        with group.lock:
            put = group.announce(batch(1), 1)
        group.commit(put)

    assert commits == [1, 1, 1]
    assert group.announced == 0


def pending(*batches: Batch) -> list[Pending]:
    return [Pending(batch, len(batch.events)) for batch in batches]


def test_puts_become_few_batches_in_order() -> None:
    a, b, udp = batch(1, 2), batch(3), batch(4, source="udp")
    large = batch(*range(1500))

    assert merged(pending(a, b)) == [Batch([1, 2, 3], [b"1", b"2", b"3"], "http")]
    assert [one.events for one in merged(pending(a, udp, b))] == [(1, 2), (4,), (3,)]
    assert [len(one.events) for one in merged(pending(a, large, b))] == [2, 1000, 501]
    assert [len(one.events) for one in merged(pending(batch(*range(999)), a))] == [999, 2]


def test_senders_are_merged_only_with_senders() -> None:
    known, unknown = batch(1, peers=["a:1"]), batch(2)
    other = batch(3, peers=["b:2"])

    assert [one.origins for one in merged(pending(known, other))] == [
        [("a:1", None), ("b:2", None)]
    ]
    assert [one.origins for one in merged(pending(known, unknown))] == [[("a:1", None)], None]


def test_a_lock_knows_its_owner() -> None:
    lock, seen = OwnedLock(), []
    with lock:
        thread = threading.Thread(target=lambda: seen.extend([lock.is_mine, lock.acquire(0.0)]))
        thread.start()
        thread.join()
        assert lock.is_mine

    assert seen == [False, False]
    assert not lock.is_mine
