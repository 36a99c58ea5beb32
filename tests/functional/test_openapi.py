"""The document of the HTTP routes, checked against a real daemon's answers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import Process

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "openapi.yaml"
MODULE = """
from daemonkit import Daemon

app = Daemon("app")

@app.slave
def worker(slave):
    slave.shutdown.wait()

@app.on_event
def handle(event):
    raise ValueError("a dead letter of each")
"""
TOKENS = {
    "ALL": ("may-do-all-there-is", "send, read, control"),
    "SENDER": ("may-only-send-events", "send"),
    "READER": ("may-only-read-status", "read"),
}
CONFIG = """
master:
    queue: events.db
    allow_from: [127.0.0.0/8]
    tokens:
""" + "".join(
    f"        {name}: {{token: !secret {token}, may: [{rights}]}}\n"
    for name, (token, rights) in TOKENS.items()
)
ANSWERED = {
    *("GET /ping 200", "GET /ready 200"),
    *(f"GET /status {code}" for code in (200, 401, 403)),
    *(f"POST /events {code}" for code in (200, 400, 401, 403, 415)),
    *(f"POST /control/show {code}" for code in (200, 400, 401, 403, 404)),
    *(f"GET /status/failed {code}" for code in (200, 400, 401, 403)),
    *(f"POST /control/pause {code}" for code in (200, 400, 404)),
    *(f"POST /control/{verb} 200" for verb in ("level", "restart", "resume", "retry", "stacks")),
    *(f"POST /control/{verb} 404" for verb in ("drop", "restart", "run-now")),
}
"""Answers that the examples must lead to, so that what checks them is known to have seen them."""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="schemathesis needs Python 3.11")
def test_schemathesis_finds_nothing(run_app: Callable[..., Process], tmp_path: Path) -> None:
    process = run_app(MODULE, "--config", "cfg.yaml", cfg__yaml=CONFIG).wait_ready()
    token = {"Authorization": f"Bearer {TOKENS['ALL'][0]}"}
    for path, number in (("/events", 1), ("/events?by=Flask", 2)):
        process.post(path, json=number, headers=token).raise_for_status()
    process.wait_until(
        lambda: process.get("/status", headers=token).json()["message"]["events"]["dead"] == 2
    )
    answers, settings = tmp_path / "answers", tmp_path / "schemathesis.toml"
    settings.write_text("[cache]\nenabled = false\n")

    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", settings),
            *("run", DOCUMENT, "--url", process.url),
            *("--checks", "all", "--max-examples", "20", "--generation-deterministic"),
            # That dead letters with other numbers aren't found is right.
            *("--exclude-path", "/control/stop", "--exclude-path", "/control/reload"),
            *("--continue-on-failure", "--warnings", "off", "--generation-codec", "ascii"),
        ],
        # Where hypothesis keeps its tables, which take seconds to make.
        cwd=ROOT,
        env={
            **os.environ,
            **{name: token for name, (token, _) in TOKENS.items()},
            "SCHEMATHESIS_HOOKS": "tests.functional.openapi_hooks",
            "ANSWERS": str(answers),
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(ANSWERED - set(answers.read_text("ascii").splitlines())) == []
    assert int(re.findall(r"^  (\d+) generated", done.stdout, re.M)[0]) >= 150
