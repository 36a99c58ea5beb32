from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.cli.workers import run_workers


@pytest.mark.parametrize(
    ("master", "error"),
    [
        ({}, "this one is in memory, which is one process's own: set master.queue to a redis://"),
        ({"queue": "events.db"}, "/events.db, which is one process's own"),
        (
            {"queue": "redis://h/0", "host": "unix:/tmp/x", "intake": ["http"]},
            "master.host is a Unix socket",
        ),
        ({"queue": "redis://h/0", "admin": "unix:/tmp/x"}, "master.admin is a Unix socket"),
    ],
)
def test_what_processes_can_not_share_is_refused(
    master: dict[str, Any],
    error: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    daemon = Daemon("app", config={"master": master})
    assert run_workers(daemon, 2, ["unused"]) == 2

    assert error in capsys.readouterr().err
