"""The benchmarks themselves are run by hand; what they print when they can't run, and what needs no peer, is tested."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from daemonkit.events.store import Store

from .benchmarks.__main__ import no_disk
from .benchmarks.bench import Bar, Bench, Row
from .benchmarks.durable import waiting_file
from .benchmarks.processes import Cores
from .benchmarks.report import lines

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


def test_a_folder_in_memory_is_no_place_for_durable_queues(tmp_path: Path) -> None:
    assert no_disk("/dev/shm") == "/dev/shm is in memory (tmpfs): --folder has to be on a disk"
    assert "No such file or directory" in str(no_disk(str(tmp_path / "missing")))


@pytest.mark.parametrize("size", [1000, 27])
def test_a_file_has_as_many_events_as_it_was_made_with(tmp_path: Path, size: int) -> None:
    with closing(Store(str(waiting_file(tmp_path, 2345, size)), create=False, patience=1)) as store:
        assert store.count() == 2345
        assert [batch.events for batch in store.batches()][-1] == 2345 % size


@pytest.mark.parametrize(
    ("ours", "met"), [(50.0, True), (49.0, False), (60.0, True), (150.0, True)]
)
def test_a_bar_may_be_met_by_a_ratio_or_by_the_figure_itself(
    tmp_path: Path, ours: float, met: bool
) -> None:
    peer = 100.0 if ours < 60 else 1000.0
    bench = Bench(Cores(0, 1), 1, 1, tmp_path)
    bench.figures["figure"]["daemonkit"] = [ours]
    bench.figures["figure"]["peer"] = [peer]
    bar = Bar("figure", "events/s", ("peer",), 0.5, enough=60)

    [line] = lines(bench, [Row("row", lambda bench: iter(()), (bar,))])

    assert line.bar == ">= 0.50 x or 60 events/s"
    assert line.met is met
