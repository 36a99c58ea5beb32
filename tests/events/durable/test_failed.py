from __future__ import annotations

import pytest

from daemonkit import Unavailable
from daemonkit.events.durable.failed import StoredFailures
from daemonkit.events.durable.store import MAX_ID, Store
from daemonkit.events.failed import Changed, Selection

from .helpers import add, add_failed

ALL_DEAD = Selection()


@pytest.fixture
def failures(store: Store) -> StoredFailures:
    """Dead letters 1000, 1001 and 1002, and 1003 to be retried."""
    add(store, 2000, b"1")
    for id, due in ((1000, None), (1001, None), (1002, None), (1003, 9e9)):
        add_failed(store, id, due, b'{"a": 1}')
    for id, error in ((1000, "ValueError: secret"), (1001, "TimeoutError")):
        store.db.execute("UPDATE failed SET error = ? WHERE id = ?", (error, id))
    return StoredFailures(store.path)


def ids(failures: StoredFailures, selection: Selection = ALL_DEAD) -> list[int]:
    return [event.id for event in failures.page(selection, None, 100, whole=True).events]


def test_they_are_listed_newest_first_in_pages(failures: StoredFailures) -> None:
    page = failures.page(ALL_DEAD, 1002, 1, whole=True)

    assert ([event.id for event in page.events], page.total) == ([1001], 3)
    assert ids(failures, Selection(state="retrying")) == [1003]


def test_they_are_selected_by_their_error_or_only_by_its_type(failures: StoredFailures) -> None:
    def found(error: str, whole: bool) -> tuple[list[int], int]:
        page = failures.page(Selection(error=error), None, 9, whole=whole)
        return [event.id for event in page.events], page.total

    assert found("SECRET", True) == ([1000], 1)
    assert found("secret", False) == ([], 0)
    assert found("timeouterror", False) == ([1001], 1)


def test_one_is_found_with_its_content(failures: StoredFailures) -> None:
    found = failures.find(1000)

    assert found is not None
    assert (found.event, found.error, found.state) == ('{"a": 1}', "ValueError: secret", "dead")
    assert failures.find(2000) is None, "it waits for its first attempt"
    assert failures.find(-1) is failures.find(MAX_ID + 1) is failures.find(7) is None


def test_they_are_retried_by_id_or_by_their_error(failures: StoredFailures) -> None:
    assert failures.retry(Selection((1000, 1003, 7, -1, MAX_ID + 1))) == Changed(
        2, (7, -1, MAX_ID + 1)
    )
    assert failures.retry(Selection(error="timeout")) == Changed(1)
    assert ids(failures) == [1002]
    assert ids(failures, Selection(state="retrying")) == [1003, 1001, 1000]


def test_they_are_dropped_and_waiting_events_are_not(
    failures: StoredFailures, store: Store
) -> None:
    assert failures.drop(Selection((1001, 2000))) == Changed(1, (2000,))
    assert failures.drop(ALL_DEAD) == Changed(2)
    assert (ids(failures), store.count()) == ([], 1)


def test_a_file_that_can_t_be_used_is_unavailable() -> None:
    failures = StoredFailures("/nowhere/events.db")
    for use in (lambda: failures.find(1), lambda: failures.drop(ALL_DEAD), lambda: ids(failures)):
        with pytest.raises(Unavailable, match="The event queue can't be used now: .*/nowhere"):
            use()
