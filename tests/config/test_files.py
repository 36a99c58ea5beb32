from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from daemonkit.config.files import Files


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
