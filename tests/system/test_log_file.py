from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemonkit.system.log_file import FileHandler
from daemonkit.system.log_formatters import JsonFormatter

from .records import hide, record


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


def test_a_formatter_that_always_fails_does_not_recurse(
    file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            raise ValueError("no")

    file_handler.setFormatter(Broken())
    file_handler.handle(record("x"))

    assert capfd.readouterr().err == ""


def test_what_goes_to_stderr_is_in_the_format_of_the_log(
    tmp_path: Path, file_handler: FileHandler, capfd: pytest.CaptureFixture[str]
) -> None:
    file_handler.setFormatter(JsonFormatter(hide))
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("in the way")
    file_handler.handle(record("hush"))

    first, second = map(json.loads, capfd.readouterr().err.splitlines())
    assert first["message"].endswith("File exists; logging to stderr meanwhile")
    assert (first["logger"], first["level"], second["message"]) == ("stderr", "ERROR", "*")


def test_a_secret_in_the_file_s_path_is_redacted(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    handler = FileHandler(str(folder / "hush.log"), hide)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    handler.handle(record("one"))
    handler.close()

    assert capfd.readouterr().err.splitlines() == [
        f"cannot log to {folder}/*.log: File exists; logging to stderr meanwhile",
        "one",
    ]
