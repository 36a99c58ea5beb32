from __future__ import annotations

import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from daemonkit import Daemon
from daemonkit.cli.events import events
from daemonkit.cli.formatting import table
from daemonkit.cli.group import group
from daemonkit.cli.queue_options import QueueSource
from daemonkit.events.durable import editor as editor_module
from daemonkit.events.durable import ndjson
from daemonkit.events.durable.database import MIGRATIONS
from daemonkit.events.durable.editor import Editor, Stored
from daemonkit.events.durable.rows import StoredBatch, StoredFailure
from daemonkit.events.durable.store import Store
from daemonkit.testing import Client, running

from ..json_values import json_values

RECEIVED = 1_700_000_000.0
FAILURE = (100.0, 200.0, "ValueError: no \x1b[31m", 'File "x"\nValueError: no \x1b[31m')


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A queue with two waiting events, one to be retried, and two dead letters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    store = Store("events.db", create=True, busy_timeout=1)
    lines = b'{"a": "\xd0\xb6\\u001b\x7f\\ud800"}', b"1", b'"%s"' % (b"x" * 300)
    store.add(
        StoredBatch(12000, 3, RECEIVED, "http", '["::1:5", "::1:6", "::1:7"]', b"\n".join(lines))
    )
    store.mark_handled(12000, [1])
    for id, due in ((3000, None), (12001, 4e9), (4000, None)):
        store.put_failed(StoredFailure(id, due, 3, RECEIVED, "udp", None, *FAILURE, b"%d" % id))
    store.close()
    return "events.db"


def invoke(*arguments: str, input: Any = None) -> Any:
    return CliRunner().invoke(group, ["events", *arguments], input=input, catch_exceptions=False)


def on(path: str, *arguments: str, input: Any = None) -> str:
    """The output of a command that succeeds."""
    result = invoke(*arguments, "--queue", path, input=input)
    assert (result.exit_code, result.stderr) == (0, "")
    return str(result.stdout)


def output_of(result: Any) -> tuple[int, str, str]:
    return result.exit_code, result.stdout, result.stderr


def exported(path: str) -> list[str]:
    return on(path, "export").splitlines()


# Listing


def test_events_are_listed_oldest_first(path: str) -> None:
    assert on(path, "list").splitlines() == [
        "ID     STATE     RECEIVED             ATTEMPTS  ERROR                      EVENT",
        "3000   dead      2023-11-14 22:13:20  3         ValueError: no \\u001b[31m  3000",
        "4000   dead      2023-11-14 22:13:20  3         ValueError: no \\u001b[31m  4000",
        '12000  waiting   2023-11-14 22:13:20  0                                    {"a": "ж\\u001b\\u007f\\u...',
        "12001  retrying  2023-11-14 22:13:20  3         ValueError: no \\u001b[31m  12001",
        '12002  waiting   2023-11-14 22:13:20  0                                    "xxxxxxxxxxxxxxxxxxxxx...',
    ]


def test_a_list_without_failed_events_has_no_column_for_errors(path: str) -> None:
    lines = on(path, "list", "--state", "waiting").splitlines()

    assert lines[0] == "ID     STATE    RECEIVED             ATTEMPTS  EVENT"
    assert {len(line) for line in lines[2:]} == {100}


def test_a_list_says_how_many_more_there_are(path: str) -> None:
    result = invoke("--queue", path, "list", "--limit", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "3000", "4000"]
    assert result.stderr == "3 more; use --limit to show them\n"

    result = invoke("--queue", path, "list", "--limit", "2", "--state", "dead")
    assert result.stderr == ""


def test_wide_characters_take_two_columns(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "74")
    lines = [json.dumps(text * 30, ensure_ascii=False).encode() for text in ("語", "e\u0301")]
    _, wide, combining = table(
        [Stored(1, "waiting", RECEIVED, "app", None, line) for line in lines]
    )

    assert wide.endswith('0         "' + "語" * 13 + "...")
    assert combining.endswith('0         "' + "e\u0301" * 26 + "...")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "There are no events in events.db"),
        (["--state", "dead"], "There are no dead letters in events.db"),
        (["--state", "retrying"], "There are no events to be retried in events.db"),
    ],
)
def test_an_empty_list_says_so(path: str, arguments: list[str], line: str) -> None:
    on(path, "drop", "--all", "--state", "all")

    assert on(path, "list", *arguments) == f"{line}\n"


def test_everything_about_an_event_is_shown(path: str) -> None:
    assert on(path, "show", "12001") == (
        "ID:            12001\n"
        "State:         retrying\n"
        "Received:      2023-11-14 22:13:20\n"
        "Source:        udp\n"
        "Attempts:      3\n"
        "First failure: 1970-01-01 00:01:40\n"
        "Last failure:  1970-01-01 00:03:20\n"
        "Next attempt:  2096-10-02 07:06:40\n"
        "Error:         ValueError: no \\u001b[31m\n"
        "\n"
        'File "x"\n'
        "ValueError: no \\u001b[31m\n"
        "\n"
        "12001\n"
    )
    assert on(path, "show", "12000") == (
        "ID:            12000\n"
        "State:         waiting\n"
        "Received:      2023-11-14 22:13:20\n"
        "Source:        http\n"
        "Peer:          ::1:5\n"
        "\n"
        '{\n  "a": "ж\\u001b\\u007f\\ud800"\n}\n'
    )


def test_a_damaged_event_is_shown_as_it_is(path: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE failed SET line = ?", (b"{\xff\x1b[2J",))
    db.close()

    assert on(path, "show", "3000").endswith(
        "The event is damaged: not UTF-8 at byte 1\n{�\\u001b[2J\n"
    )
    assert "{�\\u001b[2J" in on(path, "list")


def test_a_terminal_that_lacks_a_character_gets_an_escape(path: str) -> None:
    done = daemonkit("list", "--queue", path, env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})

    assert (done.returncode, done.stderr) == (0, b"")
    assert b'{"a": "\\u0436\\u001b' in done.stdout


# Retrying and dropping


def test_dead_letters_are_retried(path: str) -> None:
    assert on(path, "retry", "3000") == "1 event to be retried\n"
    assert on(path, "retry", "--all") == "1 dead letter to be retried\n"
    assert on(path, "list", "--state", "dead") == "There are no dead letters in events.db\n"


def test_events_that_cannot_be_retried_are_named_and_the_others_retried(path: str) -> None:
    result = invoke("--queue", path, "retry", "3000", "12003", "12000", "12001")

    assert output_of(result) == (
        1,
        "2 events to be retried\n",
        "daemonkit: there is no event 12003 in events.db\n"
        "daemonkit: event 12000 has not failed: it waits for its first attempt\n",
    )


def test_events_in_any_state_are_dropped(path: str) -> None:
    assert on(path, "drop", "12000", "12001", "3000") == "3 events dropped\n"
    assert exported(path) == ["4000", '"' + "x" * 300 + '"']


def test_a_missing_event_is_an_error(path: str) -> None:
    missing = "daemonkit: there is no event 12001000 in events.db\n"

    assert output_of(invoke("--queue", path, "show", "12001000")) == (1, "", missing)
    assert output_of(invoke("--queue", path, "drop", "12001000", "12002")) == (
        1,
        "1 event dropped\n",
        missing,
    )


@pytest.mark.parametrize(
    ("arguments", "line", "left"),
    [
        ([], "2 dead letters dropped", 3),
        (["--state", "waiting"], "2 waiting events dropped", 3),
        (["--state", "retrying"], "1 event to be retried dropped", 4),
        (["--state", "all"], "5 events dropped", 0),
    ],
)
def test_all_of_a_state_are_dropped(path: str, arguments: list[str], line: str, left: int) -> None:
    assert on(path, "drop", "--all", *arguments) == f"{line}\n"
    assert len(exported(path)) == left


def test_at_a_terminal_dropping_all_asks_for_confirmation(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.cli.events.is_interactive", lambda: True)
    result = invoke("--queue", path, "drop", "--all", input="n\n")
    assert result.exit_code == 1
    assert "Drop 2 dead letters of events.db? [y/N]" in result.stderr
    assert len(exported(path)) == 5

    assert on(path, "drop", "12000") == "1 event dropped\n"
    assert (
        invoke("--queue", path, "drop", "--all", input="y\n").stdout == "2 dead letters dropped\n"
    )
    assert on(path, "drop", "--all", "--state", "all", "--yes") == "2 events dropped\n"


# Exporting and importing


def test_waiting_and_failed_events_are_exported(path: str, tmp_path: Path) -> None:
    assert on(path, "export", "--state", "dead") == "3000\n4000\n"
    result = invoke("--queue", path, "export", "--output", "out.ndjson")

    assert output_of(result) == (0, "", "5 events written to out.ndjson\n")
    lines = (tmp_path / "out.ndjson").read_bytes().splitlines()
    assert lines[:3] == [b"3000", b"4000", b'{"a": "\xd0\xb6\\u001b\x7f\\ud800"}']


def test_space_around_an_event_is_not_exported(path: str) -> None:
    store = Store(path, create=False, busy_timeout=1)
    store.add(StoredBatch(13000, 2, RECEIVED, "http", None, b" 1 \r\n\t[2]"))
    store.close()

    assert invoke("--queue", path, "export").stdout_bytes.endswith(b'x"\n1\n[2]\n')


def test_the_queue_is_not_overwritten_with_itself(path: str) -> None:
    before = Path(path).read_bytes()
    os.link(path, "other.db")

    for output in (path, "other.db", "./events.db"):
        result = invoke("--queue", path, "export", "--output", output)
        assert (result.exit_code, "is a file of the queue itself" in result.stderr) == (2, True)
    assert Path(path).read_bytes() == before


def test_an_unwritable_output_is_an_error(path: str) -> None:
    result = invoke("--queue", path, "export", "-o", "none/x")

    assert output_of(result) == (
        1,
        "",
        "daemonkit: cannot write none/x: No such file or directory\n",
    )


# Lone surrogates, too.
VALUES = json_values(st.text(st.characters(exclude_categories=())))
NASTY = [
    "\ud800", "\u2028\x85\x7f\x00", {"": {"": []}}, 10**4000, 5e-324, 1.7976931348623157e308, "\r\n", " ", "﻿",
    json.loads("[" * 200 + "]" * 200), {"a\ud800": "😀"}, -0.0, None, "x" * 100_000,
]  # fmt: skip


def round_trip(text: bytes, folder: Path) -> bytes:
    for name in ("one.db", "other.db"):
        (folder / name).unlink(missing_ok=True)
    (folder / "in").write_bytes(text)
    on(str(folder / "one.db"), "import", str(folder / "in"))
    result = invoke("--queue", str(folder / "one.db"), "export")
    on(str(folder / "other.db"), "import", "-", input=result.stdout_bytes)
    return bytes(invoke("--queue", str(folder / "other.db"), "export").stdout_bytes)


@settings(max_examples=8, deadline=None)
@given(st.lists(VALUES, min_size=90, max_size=95), st.booleans())
def test_any_events_are_exported_as_they_were_imported(
    tmp_path_factory: pytest.TempPathFactory, events: list[Any], ascii: bool
) -> None:
    text = "".join(json.dumps(e, ensure_ascii=ascii) + "\n" for e in NASTY + events)
    # A surrogate can't be written in UTF-8.
    data = re.sub("[\ud800-\udfff]", lambda m: json.dumps(m[0])[1:-1], text).encode()

    assert round_trip(data, tmp_path_factory.mktemp("trip")) == data


def test_empty_lines_byte_order_marks_and_line_ends_are_left_out(tmp_path: Path) -> None:
    text = b"\xef\xbb\xbf1\r\n\n \t[2] \n\xef\xbb\xbf3\n\xef\xbb\xbf\n   4"

    assert round_trip(text, tmp_path) == b"1\n[2]\n3\n4\n"


def test_an_import_is_stored_in_batches_that_a_daemon_can_load(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").write_bytes(b"".join(b'{"n": %d}\n' % n for n in range(2500)))

    assert on(path, "import", "in") == "2500 events imported\n"
    db = sqlite3.connect(path)
    found = db.execute("SELECT id, count, source, peers FROM batches WHERE id > 12000").fetchall()
    db.close()
    assert found == [
        (13000, 1000, "app", None),
        (14000, 1000, "app", None),
        (15000, 500, "app", None),
    ]
    monkeypatch.setattr(ndjson, "BYTES_AT_ONCE", 10)
    Path("in").write_bytes(b"1234\n" * 5)
    on(path, "import", "in")
    db = sqlite3.connect(path)
    assert db.execute("SELECT count FROM batches WHERE id > 15000").fetchall() == [(3,), (2,)]
    db.close()


def test_an_import_finds_the_queue_of_a_configuration_from_any_folder(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("srv", "real", "elsewhere"):
        (tmp_path / folder).mkdir()
    (tmp_path / "real" / "cfg.yaml").write_text("master: {queue: x.db}")
    # As given: a link is in its own folder.
    (tmp_path / "srv" / "cfg.yaml").symlink_to("../real/cfg.yaml")
    Editor("srv/x.db", create=True).close()
    monkeypatch.chdir("elsewhere")
    Path("in").write_bytes(b"1\n2\n")
    for config in ("../srv/cfg.yaml", str(tmp_path / "srv" / "cfg.yaml")):
        assert output_of(invoke("--config", config, "import", "in")) == (
            0,
            "2 events imported\n",
            "",
        )

    assert exported("../srv/x.db") == ["1", "2"] * 2
    assert os.listdir() == ["in"]
    assert os.listdir("../real") == ["cfg.yaml"]


@pytest.mark.parametrize("arguments", [["-c", "cfg.yaml", "import"], ["import", "-c", "cfg.yaml"]])
def test_a_queue_that_only_a_configuration_names_is_not_created_unasked(
    path: str, tmp_path: Path, arguments: list[str]
) -> None:
    Path("cfg.yaml").write_text("master: {queue: new.db}")
    Path("in").write_bytes(b"1\n")
    assert output_of(invoke(*arguments, "in")) == (
        3,
        "",
        f"daemonkit: there is no event queue {tmp_path}/new.db, which cfg.yaml names; "
        "its daemon creates it, or use --create\n",
    )
    assert not Path("new.db").exists()
    assert invoke(*arguments, "in", "--create").stdout == "1 event imported\n"
    assert invoke(*arguments, "in").stdout == "1 event imported\n"
    assert exported("new.db") == ["1", "1"]


def test_a_queue_named_by_its_file_is_created(path: str) -> None:
    assert on("new.db", "import", "-", input=b"1\n") == "1 event imported\n"
    assert exported("new.db") == ["1"]


def test_an_invalid_line_refuses_the_whole_file(tmp_path: Path) -> None:
    path = str(tmp_path / "new.db")
    file = tmp_path / "in"
    file.write_bytes(b"1\n" * 1500 + b"\n{oops\n" + b"2\n" * 1500)
    result = invoke("--queue", path, "import", str(file))

    assert output_of(result) == (
        2,
        "",
        f"daemonkit: {file}: line 1502: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1); nothing was imported\n",
    )
    assert not os.path.exists(path)


def test_from_stdin_everything_before_an_invalid_line_is_imported(path: str) -> None:
    result = invoke("--queue", path, "import", "-", input=b"1\n" * 1500 + b"NaN\n" + b"2\n")

    assert output_of(result) == (
        2,
        "",
        "daemonkit: -: line 1501: NaN is not JSON: line 1 column 1 (char 0); "
        "1500 events had been imported\n",
    )
    assert len(exported(path)) == 1505


def test_a_line_that_is_too_long_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "LONGEST_LINE", 10)
    result = invoke("--queue", path, "import", "-", input=b"1234567890\n" + b"1" * 12 + b"\n")

    assert result.exit_code == 2
    assert "-: line 1: longer than 10 bytes" in result.stderr
    result = invoke("--queue", path, "import", "-", input=b"123456789\n" + b"1" * 12 + b"\n")
    assert "-: line 2: longer than 10 bytes; 1 event had been imported" in result.stderr


def test_a_missing_file_is_an_error_and_an_empty_one_is_not(path: str) -> None:
    assert output_of(invoke("--queue", path, "import", "none")) == (
        2,
        "",
        "daemonkit: cannot read none: No such file or directory; nothing was imported\n",
    )
    Path("empty").touch()
    assert on(path, "import", "empty") == "0 events imported\n"


def stopped_by(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the third batch fail with an error."""
    add, calls = Editor.add, []

    def add_or_raise(self: Editor, lines: list[bytes]) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise error
        add(self, lines)

    monkeypatch.setattr(Editor, "add", add_or_raise)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            sqlite3.OperationalError("database is locked"),
            "the event queue events.db: database is locked",
        ),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_an_import_that_is_stopped_says_how_far_it_got(
    path: str, monkeypatch: pytest.MonkeyPatch, error: BaseException, line: str
) -> None:
    Path("in").write_bytes(b"1\n" * 5000)
    stopped_by(error, monkeypatch)

    assert output_of(invoke("--queue", path, "import", "in")) == (
        1,
        "",
        f"daemonkit: {line}; 2000 events had been imported\n",
    )
    assert len(exported(path)) == 2005


INTERRUPTED = """
import os, signal
from daemonkit.cli import main
from daemonkit.events.durable.editor import Editor

# Whatever was inherited: under nohup, or in the background, it may be ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
add = Editor.add

def add_interrupted(self, lines):
    os.kill(os.getpid(), signal.SIGINT)
    add(self, lines)

Editor.add = add_interrupted
main()
"""


def test_ctrl_c_in_the_middle_of_a_batch_waits_for_its_end(path: str) -> None:
    Path("in").write_bytes(b"1\n" * 5000)
    command = [sys.executable, "-c", INTERRUPTED, "events", "import", "in", "--queue", path]
    done = subprocess.run(command, capture_output=True, check=False)

    assert (done.returncode, done.stdout, done.stderr.decode()) == (
        1,
        b"",
        "daemonkit: interrupted; 1000 events had been imported\n",
    )
    assert len(exported(path)) == 1005


def test_a_terminal_sees_a_bar(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    Path("in").write_bytes(b"1\n" * 3000)
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    import_ = events.commands["import"]
    with click.Context(import_, obj=QueueSource(path, None)) as context:
        context.invoke(import_, file="in", queue=None, config=None)

    assert re.search(r"Checking .*100%.*Importing .*100%", terminal.getvalue(), re.DOTALL)


# The queue's path and file


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["list"], 2, "daemonkit: no queue given: use --queue FILE or --config FILE"),
        (["list", "-q", "a", "-c", "b"], 2, "daemonkit: give --queue or --config, not both"),
        (["-q", "a", "-c", "b", "list"], 2, "daemonkit: give --queue or --config, not both"),
        (["-q", "events.db", "drop"], 2, "daemonkit: give either event IDs or --all"),
        (["-q", "events.db", "retry"], 2, "daemonkit: give either event IDs or --all"),
        (["-q", "events.db", "drop", "1", "--all"], 2, "daemonkit: give either event IDs or --all"),
        (["-q", "events.db", "drop", "1", "--state", "all"], 2, "daemonkit: --state requires --all"),
        (
            ["-c", "memory.yaml", "list"],
            2,
            "daemonkit: memory.yaml: master.queue is not set: the daemon keeps its events in memory; see `daemonkit status` and `daemonkit ctl`",
        ),
        (["-c", "wrong.yaml", "list"], 2, "daemonkit: wrong.yaml:1: master.port must be an int 0..65535, not 'x' (str)"),
        (["-q", "none.db", "list"], 3, "daemonkit: cannot open the event queue none.db: there is no such file"),
        (["-q", "no/x.db", "import", "memory.yaml"], 3, "daemonkit: cannot open the event queue no/x.db: there is no folder "),
        (["-q", "foreign.db", "list"], 3, "daemonkit: foreign.db is the database of another program, not an event queue"),
        (["-q", "newer.db", "drop", "--all"], 3, f"daemonkit: the event queue newer.db has format {len(MIGRATIONS) + 1}, and this version of daemonkit supports "),
        (["-q", "garbage.db", "list"], 3, "daemonkit: the event queue garbage.db can't be read: file is not a database"),
        (["-q", "garbage.db", "import", "number"], 3, "daemonkit: the event queue garbage.db can't be read: file is not a database"),
        (["-q", "garbage.db", "export"], 3, "daemonkit: the event queue garbage.db can't be read: file is not a database"),
    ],
)  # fmt: skip
def test_errors_take_one_line(path: str, arguments: list[str], status: int, line: str) -> None:
    Path("memory.yaml").write_text("a: 1\n")
    Path("wrong.yaml").write_text("master: {port: x}\n")
    Path("number").write_text("1\n")
    Path("garbage.db").write_bytes(b"garbage" * 1000)
    for name, statement in (
        ("foreign.db", "CREATE TABLE x (y)"),
        ("newer.db", f"PRAGMA user_version = {len(MIGRATIONS) + 1}"),
    ):
        if name == "newer.db":
            Path(name).write_bytes(Path(path).read_bytes())
        db = sqlite3.connect(name)
        db.execute(statement)
        db.close()
    files = sorted(os.listdir())
    result = invoke(*arguments)

    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (status, "", 1)
    assert result.stderr.startswith(line)
    assert sorted(os.listdir()) == files


def test_the_readable_events_of_a_damaged_file_are_exported(path: str) -> None:
    on(
        path,
        "import",
        "-",
        input=b"".join(b'{"n": %d, "x": "%s"}\n' % (n, b"x" * 80) for n in range(5000)),
    )
    data = bytearray(Path(path).read_bytes())
    data[-8192:-4096] = b"\xff" * 4096
    Path(path).write_bytes(data)

    assert invoke("--queue", path, "list").exit_code == 3
    result = invoke("--queue", path, "export")
    assert result.exit_code == 3
    assert 2000 < len(result.stdout.splitlines()) < 5005
    assert re.fullmatch(
        r"daemonkit: the event queue events.db is damaged \(.+\): \d+ events could be read, "
        r"\d+ batches or failed events could not\n",
        result.stderr,
    )


def test_a_locked_file_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editor_module, "BUSY_TIMEOUT", 0.01)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")

    assert output_of(invoke("--queue", path, "retry", "--all")) == (
        1,
        "",
        "daemonkit: the event queue events.db: database is locked\n",
    )
    assert len(exported(path)) == 5
    db.close()


def daemonkit(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> Any:
    command = [sys.executable, "-m", "daemonkit", "events", *arguments]
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        command, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, check=False, **options
    )


def test_a_closed_pipe_is_not_an_error(path: str) -> None:
    on(path, "import", "-", input=b'"0123456789"\n' * 20_000)
    reading, writing = os.pipe()
    os.close(reading)
    done = daemonkit("export", "--queue", path, stdout=writing)
    os.close(writing)

    assert done.stderr == b""


# Beside a daemon


@contextmanager
def daemon(handle: Callable[[Any], None], path: str, **options: Any) -> Iterator[Client]:
    app = Daemon("test")
    app.on_event(**options)(handle)
    with running(app, {"master": {"queue": path, "log_level": "CRITICAL"}}) as client:
        yield client


@pytest.fixture
def fresh(tmp_path: Path) -> str:
    return str(tmp_path / "live.db")


def test_a_daemon_handles_imported_events(fresh: str) -> None:
    handled: list[Any] = []
    with daemon(handled.append, fresh) as client:
        client.send_event("first")
        assert on(fresh, "import", "-", input=b"1\n" * 1500) == "1500 events imported\n"
        client.timeout = 2.0
        client.wait_until(lambda: len(handled) == 1501)
        client.send_event("last")
        client.wait_until(lambda: handled[-1] == "last")

    assert on(fresh, "list").startswith("There are no events in ")


def test_a_daemon_retries_dead_letters(fresh: str) -> None:
    handled: list[Any] = []
    broken = True

    def handle(event: Any) -> None:
        if broken:
            raise ValueError("no")
        handled.append(event)

    with daemon(handle, fresh) as client:
        for event in range(3):
            client.send_event(event)
        client.wait_until(lambda: client.status()["events"]["dead"] == 3)
        broken = False
        assert on(fresh, "retry", "--all") == "3 dead letters to be retried\n"
        client.wait_until(lambda: sorted(handled) == [0, 1, 2])
        client.wait_until(lambda: client.status()["events"]["dead"] == 0)

    assert on(fresh, "list").startswith("There are no events in ")


def test_a_daemon_does_not_handle_dropped_events(fresh: str) -> None:
    handled: list[Any] = []
    entered, go_on = threading.Event(), threading.Event()

    def handle(event: Any) -> None:
        if event == "bad":
            raise ValueError("no")
        entered.set()
        go_on.wait(10)
        handled.append(event)

    with daemon(handle, fresh) as client:
        client.send_event("bad")
        client.wait_until(lambda: client.status()["events"]["dead"] == 1)
        lines = {"data": b"0\n1\n2\n3\n", "headers": {"Content-Type": "application/x-ndjson"}}
        client.post("/events", **lines)
        client.send_event(4)
        assert entered.wait(10)
        ids = {event: id for id, event in listed(fresh)}
        assert on(fresh, "drop", ids["2"], ids["4"], ids['"bad"']) == "3 events dropped\n"
        # The daemon notices all three at once.
        client.wait_until(lambda: client.status()["events"]["dead"] == 0)
        go_on.set()
        client.send_event("last")
        client.wait_until(lambda: handled[-1:] == ["last"])

    assert handled == [0, 1, 3, "last"]


def listed(path: str) -> list[tuple[str, str]]:
    rows = [line.split() for line in on(path, "list").splitlines()[1:]]
    return [(row[0], row[-1]) for row in rows]


def test_imports_beside_a_daemon_that_accepts_events_lose_nothing(fresh: str) -> None:
    handled: list[Any] = []

    def add(first: int) -> None:
        editor = Editor(fresh)
        for n in range(first, first + 100, 10):
            editor.add([b"%d" % event for event in range(n, n + 10)])
        editor.close()

    def send(client: Client, first: int) -> None:
        for n in range(first, first + 50):
            # With so many writers, the daemon may time out on the file's lock and answer 503.
            while client.post("/events", json=n).status_code == 503:
                pass

    with daemon(handled.append, fresh) as client:
        threads = [threading.Thread(target=add, args=(n * 100,)) for n in range(24)]
        threads += [threading.Thread(target=send, args=(client, 10_000 + n * 50)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.wait_until(lambda: len(handled) >= 2600)

    assert sorted(handled) == [*range(2400), *range(10_000, 10_200)]
