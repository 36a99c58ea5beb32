from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from .durable import Queue
from .process import Process


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start `python ARGUMENTS...` in a folder of its own; `name="text"` writes files there first."""
    processes: list[Process] = []

    def start(
        *command: str,
        env: dict[str, str | None] | None = None,
        pass_fds: Sequence[int] = (),
        **files: str,
    ) -> Process:
        folder = tmp_path / str(len(processes))
        folder.mkdir()
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)
        process = Process(command, folder, env, pass_fds)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.close()


@pytest.fixture
def run_app(spawn: Callable[..., Process]) -> Callable[..., Process]:
    """Start `daemonkit run` on a module's text, on a free port."""

    def start(text: str, *options: str, **files: str) -> Process:
        return spawn(
            "-m", "daemonkit", "run", "mymod", "--port", "0", *options, mymod__py=text, **files
        )

    return start


@pytest.fixture
def queue(tmp_path: Path, run_app: Callable[..., Process]) -> Queue:
    """A durable queue on a disk without faults."""
    return Queue(tmp_path / "events.db", tmp_path, run_app)
