"""The README's commands, run as printed, with the real curl and nc."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import Process
from .tools import need_all_of

README = (Path(__file__).parent.parent.parent / "README.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"```(python|yaml)\n(.+?)```", README, re.DOTALL))
LINES = re.findall(r"^(?:curl|echo).*$", README, re.MULTILINE)
SPEC_LINES = [
    """curl -g -6 'http://[::1]:5151/events' -X POST -d '{"Hello": "World"}'""",
    """echo -n '{"Hello": "World"}' | nc -6u ::1 5151 -w 0""",
]


def shell(line: str, port: int) -> str:
    """Run a line as printed, except for the port."""
    need_all_of(line)
    done = subprocess.run(
        line.replace("5151", str(port)).replace("curl ", "curl -sS "),
        shell=True,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_app_has_fifteen_lines() -> None:
    assert len([line for line in BLOCKS["python"].splitlines() if line]) <= 15


def test_the_app_and_the_lines_work_as_printed(spawn: Callable[..., Process]) -> None:
    config = BLOCKS["yaml"].replace("port: 5151", "port: 0")
    daemon = spawn(
        "-m", "daemonkit", "run", "mymod:app", "--config", "cfg.yaml",
        mymod__py=BLOCKS["python"], cfg__yaml=config,
    ).wait_ready()  # fmt: skip
    posted, sent, status, ping = LINES

    assert json.loads(shell(posted, daemon.port)) == {"message": "Event received", "result": True}
    assert shell(sent, daemon.port) == ""
    daemon.wait_until(lambda: daemon.status()["total"] == 12)
    shown = json.loads(shell(status, daemon.port))["message"]
    assert shown["config"] == {"url": "http://localhost:8000", "token": "*** HIDDEN ***"}
    assert shell(ping, daemon.port) == "OK\n"
    assert daemon.stop() == 0


@pytest.mark.parametrize("line", SPEC_LINES)
def test_the_lines_of_the_contract_deliver(run_app: Callable[..., Process], line: str) -> None:
    daemon = run_app("from daemonkit import Daemon\napp = Daemon('app')\n").wait_ready()

    def delivered() -> bool:
        # With -w 0, nc doesn't wait for echo: on a busy machine it may end before it has read.
        shell(line, daemon.port)
        return daemon.status()["events"]["received"] > 0

    daemon.wait_until(delivered)
    daemon.wait_for(r' INFO +Event: \{"Hello": "World"\} \[event \d+\]\n')
