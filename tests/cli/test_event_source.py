from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from daemonkit.cli import event_source
from daemonkit.cli.event_source import Lines, is_event, read_batches
from daemonkit.exceptions import InvalidEvent


def batches(data: bytes, most: int = 100) -> list[Lines]:
    return list(read_batches(io.BytesIO(data), most))


@pytest.mark.parametrize("text", ['{"a": 1}', "[1]", '"x"', "5", "null", ' {"a":\n1} '])
def test_valid_json_is_an_event(text: str) -> None:
    assert is_event(text)


@pytest.mark.parametrize("text", ["events.ndjson", "./5", "nonsense", "", "\udcff"])
def test_anything_else_is_a_file_s_name(text: str) -> None:
    assert not is_event(text)


def test_an_event_that_is_wrong_is_told_by_how_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidEvent, match="line 1 column 7"):
        is_event('{"a": x}')
    # There may be a file of that name.
    Path("[x").write_text("")
    assert not is_event("[x")


def test_lines_come_in_batches_with_their_numbers() -> None:
    assert batches(b"1\n\n \r\n2\r\n3", 2) == [
        Lines([b"1", b"2"], 1, 4, 9),
        Lines([b"3"], 5, 5, 10),
    ]
    assert [lines.place for lines in batches(b"1\n2\n3\n", 2)] == ["lines 1-2", "line 3"]
    assert batches(b"\n\n") == batches(b"") == []


def test_a_byte_order_mark_is_no_part_of_a_line() -> None:
    assert batches(b"\xef\xbb\xbf1\n\xef\xbb\xbf2") == [
        Lines([b"1"], 1, 1, 5),
        Lines([b"2"], 2, 2, 9),
    ]


def test_a_batch_has_a_megabyte_or_one_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source, "BATCH_BYTES", 10)
    found = batches(b'"123"\n1\n"123"\n"1234567890"\n2\n')

    assert [lines.events for lines in found] == [
        [b'"123"', b"1"],
        [b'"123"'],
        [b'"1234567890"'],
        [b"2"],
    ]


def test_lines_before_an_invalid_one_are_yielded() -> None:
    found = read_batches(io.BytesIO(b"1\n2\nx\n3\n"), 100)

    assert next(found).events == [b"1", b"2"]
    with pytest.raises(InvalidEvent, match="^line 3: "):
        next(found)


def test_an_event_is_not_kept_waiting_for_the_next_one() -> None:
    ours, theirs = os.pipe()
    with open(ours, "rb") as source, open(theirs, "wb", 0) as writer:
        found = read_batches(source, 100)
        writer.write(b"1\n2\n3")
        assert next(found).events == [b"1", b"2"]
        writer.write(b"4\n")
        assert next(found) == Lines([b"34"], 3, 3, 7)
        writer.close()
        assert list(found) == []


def test_a_line_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source, "LONGEST_LINE", 10)
    monkeypatch.setattr(event_source, "CHUNK", 4)
    with pytest.raises(InvalidEvent, match="^line 2: longer than 10 bytes$"):
        batches(b"1\n" + b" " * 100)
