"""The benchmarks themselves are run by hand; what they print when they can't run, and what needs no peer, is tested."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    # Without coverage, which the daemons under test would be measured with otherwise.
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": path}
    )


def test_what_is_missing_is_named_in_one_line(tmp_path: Path) -> None:
    done = run("tests.benchmarks", path=str(tmp_path))

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("wrk is missing: apt-get install wrk")
    assert done.stderr.count("\n") == 1


def test_the_way_from_the_queue_to_the_handler_meets_its_bar() -> None:
    done = run("tests.benchmarks.alone", "queue", path="")

    assert done.stderr == ""
    assert float(done.stdout) >= 400_000
