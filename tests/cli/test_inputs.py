from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest

from daemonkit.cli.inputs import opened, progress, size_of

from .test_terminal import Terminal


def test_a_file_has_a_size_and_a_pipe_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with opened(str(tmp_path / "file")) as source:
        assert (size_of(source, "file"), source.read()) == (3, b"abc")
    ours, theirs = os.pipe()
    os.close(theirs)
    with open(ours, "rb") as pipe:
        assert size_of(pipe, "/dev/fd/5") is None


def test_a_dash_is_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc")))
    with opened("-") as source:
        assert (size_of(source, "-"), source.read()) == (None, b"abc")


@pytest.mark.parametrize(("size", "shown"), [(100, True), (None, False)])
def test_a_bar_is_shown_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, size: int | None, shown: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress("Sending", size) as show:
        show(100)

    assert ("Sending" in terminal.getvalue() and "100%" in terminal.getvalue()) is shown
