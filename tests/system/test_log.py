from __future__ import annotations

import json
import logging
import os
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemonkit import StartError
from daemonkit.system import log
from daemonkit.system.log import (
    ColumnFormatter,
    FileHandler,
    JsonFormatter,
    log_safely,
    write_stderr,
)


def record(message: str = "hello", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "app", "levelno": 20, "levelname": "INFO", "msg": message, "args": args, **extra}
    )
    made.threadName = extra.get("threadName", "worker")
    return made


def hide(text: str) -> str:
    return text.replace("hush", "*")


def test_the_columns_are_those_of_the_original() -> None:
    line = ColumnFormatter().format(record("Config file is not specified", threadName="MainThread"))

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
        r"MainThread {14}app {29}INFO {8}Config file is not specified",
        line,
    )


def test_a_name_longer_than_its_column_is_separated_from_the_next() -> None:
    line = ColumnFormatter().format(record(threadName="t" * 40))

    assert f" {'t' * 40} app " in line


def test_secrets_are_redacted_in_message_and_traceback() -> None:
    try:
        raise ValueError("hush")
    except ValueError:
        made = record("say %s", "hush", exc_info=sys.exc_info(), stack_info="hush")

    assert "hush" not in ColumnFormatter(hide).format(made)
    made.exc_text = None
    assert "hush" not in JsonFormatter(hide).format(made)


def test_json_has_one_object_a_line_with_the_extras() -> None:
    try:
        raise ValueError("no")
    except ValueError:
        made = record("a\n%s", "b", exc_info=sys.exc_info(), request={"id": 5}, when=os)
    line = JsonFormatter().format(made)
    fields = json.loads(line)

    assert "\n" not in line
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", fields.pop("time"))
    assert fields.pop("exception").endswith("ValueError: no")
    assert fields == {
        "level": "INFO",
        "logger": "app",
        "thread": "worker",
        "message": "a\nb",
        "request": {"id": 5},
        "when": str(os),
    }


def test_an_extra_that_json_cannot_hold_is_text() -> None:
    circle: dict[str, Any] = {}
    circle["self"] = circle
    fields = json.loads(JsonFormatter().format(record(nan=float("nan"), circle=circle)))

    assert fields["nan"] == "nan"
    assert fields["circle"] == "{'self': {...}}"


@pytest.fixture
def file_handler(tmp_path: Path) -> Iterator[FileHandler]:
    (tmp_path / "logs").mkdir()
    handler = FileHandler(str(tmp_path / "logs" / "app.log"))
    handler.setFormatter(logging.Formatter("%(message)s"))
    yield handler
    handler.close()


def test_the_file_is_followed_through_logrotate(tmp_path: Path, file_handler: FileHandler) -> None:
    path = tmp_path / "logs" / "app.log"
    file_handler.handle(record("one"))
    path.rename(tmp_path / "logs" / "app.log.1")
    file_handler.handle(record("two"))

    assert (tmp_path / "logs" / "app.log.1").read_text() == "one\n"
    assert path.read_text() == "two\n"


def test_a_removed_folder_is_recreated(tmp_path: Path, file_handler: FileHandler) -> None:
    shutil.rmtree(tmp_path / "logs")
    file_handler.handle(record("back"))

    assert (tmp_path / "logs" / "app.log").read_text() == "back\n"


def test_while_the_file_cannot_be_written_lines_go_to_stderr(
    tmp_path: Path, file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "app.log"
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("in the way")
    file_handler.handle(record("one"))
    file_handler.handle(record("two \ud800"))
    (tmp_path / "logs").unlink()
    file_handler.handle(record("three"))

    assert capfd.readouterr().err == (
        f"cannot log to {path}: File exists; logging to stderr meanwhile\n"
        f"one\ntwo \\ud800\nlogging to {path} again\n"
    )
    assert path.read_text() == "three\n"


def test_a_second_failure_is_reported_like_the_first(
    tmp_path: Path, file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    for _ in range(2):
        shutil.rmtree(folder)
        folder.write_text("in the way")
        file_handler.handle(record("one"))
        folder.unlink()
        file_handler.handle(record("two"))
    lines = capfd.readouterr().err.splitlines()

    assert [line.split()[0] for line in lines] == ["cannot", "one", "logging"] * 2


def test_a_full_disk_does_not_raise_into_the_caller(
    tmp_path: Path, file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "logs" / "app.log"
    path.unlink()
    path.symlink_to("/dev/full")
    file_handler.handle(record("one"))

    assert capfd.readouterr().err.endswith("logging to stderr meanwhile\none\n")


def test_a_lone_surrogate_is_logged(tmp_path: Path, file_handler: FileHandler) -> None:
    file_handler.handle(record("\ud800"))

    assert (tmp_path / "logs" / "app.log").read_text() == "\\ud800\n"


@pytest.fixture
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:], _ = handlers, root.setLevel(level)
    logging.captureWarnings(False)


@pytest.mark.usefixtures("_logging_restored")
def test_configure_writes_json_to_a_file_at_the_chosen_level(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    log.configure(level="WARNING", path=str(path), style="json", redact=hide)
    logging.getLogger("x").info("not this")
    thread = threading.Thread(
        target=lambda: logging.getLogger("x").warning("this, hush"), name="slave-1"
    )
    thread.start()
    thread.join()
    fields = json.loads(path.read_text())

    assert (fields["message"], fields["thread"]) == ("this, *", "slave-1")


@pytest.mark.usefixtures("_logging_restored")
def test_warnings_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        log.configure(level="WARNING", path=str(path), style="text", redact=hide)
        warnings.warn("say hush", stacklevel=1)

    assert re.search(r" py\.warnings +WARNING .*UserWarning: say \*\n", path.read_text())


@pytest.mark.usefixtures("_logging_restored")
def test_a_log_file_that_cannot_be_opened_is_named_in_one_line() -> None:
    with pytest.raises(StartError) as caught:
        log.configure(level="INFO", path="/nowhere/x.log", style="text", redact=str)

    assert str(caught.value) == (
        "cannot open the log file /nowhere/x.log: No such file or directory; see master.log_file"
    )


def test_text_from_outside_cannot_forge_a_log_line() -> None:
    forged = "2018-01-26 17:39:28,062 MainThread"
    line = ColumnFormatter().format(record(f"/a\n{forged}\r{forged}\x1b[31m\x85\u2028{forged}"))
    lines = line.split("\n")

    assert len(lines) == len(line.splitlines()) == 2
    assert lines[1] == f"  {forged}\\r{forged}\\x1b[31m\\x85\\u2028{forged}"


def test_a_line_that_cannot_be_formatted_is_kept_without_its_arguments(
    tmp_path: Path, file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    file_handler.handle(record("no place for it", "hush", filename="mymod.py", lineno=5))

    assert (tmp_path / "logs" / "app.log").read_text() == (
        "no place for it (this line of mymod.py:5 could not be formatted: TypeError)\n"
    )
    assert capfd.readouterr().err == ""


def test_a_formatter_that_always_fails_does_not_recurse(
    file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise ValueError("no")

    file_handler.setFormatter(Broken())
    file_handler.handle(record("x"))

    assert capfd.readouterr().err == ""


def test_only_the_message_is_redacted_and_not_the_columns() -> None:
    made = record("INFO worker", threadName="worker")
    hidden = ColumnFormatter(lambda text: text.replace("worker", "*").replace("INFO", "*"))
    json_hidden = JsonFormatter(lambda text: text.replace("worker", "*").replace("INFO", "*"))

    assert re.search(r" worker {18}app {29}INFO {8}\* \*$", hidden.format(made))
    fields = json.loads(json_hidden.format(made))
    assert (fields["thread"], fields["level"], fields["message"]) == ("worker", "INFO", "* *")


def test_the_mark_of_a_replaced_line_is_not_an_extra() -> None:
    made = record(is_replacement=True)

    assert "is_replacement" not in json.loads(JsonFormatter().format(made))


# A log that fails


def test_a_line_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    write_stderr("caf\u00e9 \ud800\n")

    assert capfd.readouterr().err == "caf\u00e9 ?\n"


def test_a_full_or_closed_stderr_neither_blocks_nor_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def refuse(*arguments: object) -> int:
        written.append(arguments)
        raise OSError

    monkeypatch.setattr(log, "os", SimpleNamespace(write=refuse))
    write_stderr("line\n")
    full = SimpleNamespace(select=lambda *arguments: ([], [], []))
    monkeypatch.setattr(log, "select", full)
    write_stderr("line\n")

    assert written == [(2, b"line\n")]


def test_a_handler_that_raises_does_no_harm_and_the_message_goes_to_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("no")

    logger = logging.Logger("app")
    logger.addHandler(Broken())
    log_safely(logger, logging.INFO, "Stopped by %s", "me")

    assert capfd.readouterr().err == "app: Stopped by me\n"
