from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemonkit.events.durable.rows import StoredFailure
from daemonkit.events.shared import records


def test_a_batch_is_read_from_an_entry() -> None:
    flat = [b"n", b"2", b"s", b"udp", b"d", b"1\n2", b"p", b'["a:1", null]']
    batch = records.batch_in(b"21790000000000-0", records.fields_of(flat))

    assert (batch.id, batch.events, batch.source) == (21_790_000_000_000_000, 2, "udp")
    assert batch.texts() == [b"1", b"2"]
    assert [origin.peer for origin in batch.origins()] == ["a:1", None]
    assert batch.received == 2_179_000_000 + records.EPOCH


@pytest.mark.parametrize("fields", [{}, {b"n": b"x", b"s": b"app", b"d": b"1"}, {b"n": b"1"}])
def test_what_is_no_batch_is_an_error(fields: dict[bytes, bytes]) -> None:
    with pytest.raises((KeyError, ValueError)):
        records.batch_in(b"1-0", fields)


@given(st.text(), st.text(), st.binary(), st.integers(0, 9), st.none() | st.floats(0, 1e9))
def test_a_failed_event_is_stored_as_it_is(
    error: str, traceback: str, line: bytes, attempts: int, due: float | None
) -> None:
    row = StoredFailure(7, due, attempts, 1.5, "http", None, 2.5, 3.5, error, traceback, line)
    found = records.failure_in(7, records.to_json(row).encode(), attempts, due)

    assert found.line == line
    assert found._replace(error=error, traceback=traceback) == row


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"event": 1}', b"\xff"])
def test_what_is_no_failed_event_is_an_error(text: bytes) -> None:
    with pytest.raises((KeyError, ValueError, TypeError, AttributeError)):
        records.failure_in(7, text, 0, None)
