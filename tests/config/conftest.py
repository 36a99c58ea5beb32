from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> str:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "cfg.yaml").write_bytes(data)
        return "cfg.yaml"

    return write


@pytest.fixture
def piped() -> Iterator[Callable[[str], str]]:
    """The path of a pipe that contains a text, as with `<(...)`."""
    opened: list[int] = []

    def pipe(text: str) -> str:
        reader, writer = os.pipe()
        opened.append(reader)
        os.write(writer, text.encode())
        os.close(writer)
        return f"/dev/fd/{reader}"

    yield pipe
    for reader in opened:
        os.close(reader)
