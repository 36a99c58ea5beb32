from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from daemonkit.cli.formatting import details, table
from daemonkit.events.durable.editor import Stored
from daemonkit.types import Origin


@pytest.fixture(autouse=True)
def _terminal() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


def stored(line: bytes = b"{}", **more: Any) -> Stored:
    return Stored(1, "dead", 1_700_000_000.0, "http", Origin("::1:5"), line, **more)


def test_a_table_is_as_wide_as_the_terminal() -> None:
    lines = list(table([stored(b'"%s"' % (b"x" * 200), error="e" * 60, attempts=3)]))

    assert lines[0].split() == ["ID", "STATE", "RECEIVED", "ATTEMPTS", "ERROR", "EVENT"]
    assert f"  {'e' * 37}...  " in lines[1]
    assert lines[1].endswith("...")
    # The event's column is never narrower than 20.
    assert len(lines[1].split()[-1]) == 20


def test_a_table_without_errors_has_no_column_for_them() -> None:
    heading, row = table([stored(b'{"a": "%s"}' % (b"x" * 99))])

    assert "ERROR" not in heading
    assert len(row) == 80


def test_details_show_the_event_as_indented_json() -> None:
    lines = list(details(stored(b'{"a": [1]}', attempts=2, error="ValueError: no\x1b", due=None)))

    assert lines[-1] == '{\n  "a": [\n    1\n  ]\n}'
    assert "Received:      2023-11-14 22:13:20" in lines
    assert "Peer:          ::1:5" in lines
    assert "Next attempt:  none" in lines
    assert "Error:         ValueError: no\\u001b" in lines


def test_a_damaged_event_is_shown_as_it_is() -> None:
    lines = list(details(stored(b'{"a":\xff\x1b')))

    assert lines[-2].startswith("The event is damaged: ")
    assert lines[-1] == '{"a":\ufffd\\u001b'
