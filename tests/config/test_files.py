from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from daemonkit import ConfigError, Daemon
from daemonkit.config import files as files_module
from daemonkit.config.files import Files, refuse_special
from daemonkit.exceptions import StartError


def test_a_file_is_read_again_and_a_pipe_is_kept(
    piped: Callable[[str], str], tmp_path: Path
) -> None:
    files, file, pipe = Files(), tmp_path / "file", piped("once")
    for content in ("one", "two"):
        file.write_text(content)
        assert (files.read(file), files.read(pipe)) == (content.encode(), b"once")

    assert files.kept == [pipe]


def test_a_process_that_multiprocessing_starts_reads_regular_files_only(
    piped: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = "from multiprocessing.spawn import spawn_main; spawn_main(pipe_handle=7)"
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", command, "--multiprocessing-fork"])
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("x")
    for path in (piped("x"), tmp_path / "fifo"):
        with pytest.raises(ValueError, match="it can be read only once, and not by a process"):
            Files().read(path)
    with pytest.raises(FileNotFoundError):
        Files().read(tmp_path / "none")

    assert Files().read(tmp_path / "file") == b"x"


def test_a_fifo_is_read_once_something_writes_to_it(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    files, found = Files(), []
    reader = threading.Thread(target=lambda: found.append(files.read(path)))
    reader.start()
    with open(path, "wb", 0) as file:
        file.write(b"one ")
        file.write(b"two")
    reader.join(30)

    assert found == [files.read(path)] == [b"one two"]


def test_a_fifo_that_nothing_is_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "FIFO_TIMEOUT", 0.05)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "cfg.yaml").write_text("a: !secret file:fifo\n")

    message = "cfg.yaml:1: cannot read the secret file fifo: it is a FIFO, and nothing is written"
    with pytest.raises(ConfigError, match=f"{message} to it within 0.05 s$"):
        Daemon("app", str(tmp_path / "cfg.yaml")).config  # noqa: B018
    with pytest.raises(ConfigError, match="it is a FIFO"):
        Daemon("app", str(tmp_path / "fifo")).config  # noqa: B018


@pytest.fixture
def special(tmp_path: Path) -> dict[str, str]:
    """Paths of special files."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    return {"a FIFO": f"{tmp_path}/fifo", "a socket": f"{tmp_path}/socket"}


@pytest.mark.parametrize("setting", ["log_file", "queue"])
@pytest.mark.parametrize("kind", ["a FIFO", "a socket"])
def test_a_special_file_is_refused_before_it_is_opened(
    special: dict[str, str], capsys: pytest.CaptureFixture[str], setting: str, kind: str
) -> None:
    path = special[kind]
    with pytest.raises(SystemExit) as caught:
        Daemon("app", {"master": {setting: path, "port": 0}}).start()

    assert caught.value.code == 3
    assert capsys.readouterr().err == (
        f"app: master.{setting} must be a regular file, but {path} is {kind}\n"
    )


def test_a_log_may_go_to_a_device_or_descriptor(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    # As images of containers do with /dev/stdout.
    (tmp_path / "link").symlink_to(f"/dev/fd/{writer}")
    for path in ("/dev/null", f"/dev/fd/{writer}", f"{tmp_path}/link", f"{tmp_path}/new"):
        refuse_special(path, "master.log_file", stat.S_IFCHR)
    os.close(reader)
    os.close(writer)

    with pytest.raises(StartError, match="^x must be a regular file, but /dev/null is a character"):
        refuse_special("/dev/null", "x")
