"""The benchmarks themselves are run by hand; this tests what needs no additional packages."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from daemonkit.events.durable.store import Store

from .benchmarks import alone
from .benchmarks.__main__ import no_disk, parse
from .benchmarks.bench import Bar, Bench, Row
from .benchmarks.durable import waiting_file
from .benchmarks.limits import Hostile, pings_during
from .benchmarks.load import EVENT, EVENTS, HELLO, PING, Wrk, check_exactly
from .benchmarks.processes import PINNED, PINNINGS, UNPINNED, CheckFailed, Cores
from .benchmarks.report import lines
from .benchmarks.rows import ROWS
from .benchmarks.servers import (
    DAEMONKIT,
    WAITRESS,
    WITH_HOOK,
    WITH_META,
    WITH_TOKEN,
    CoreWatch,
    Peer,
    Server,
    computing,
)
from .benchmarks.slow import EVENT_WITH_QUERY, check_answers

ROOT = Path(__file__).parent.parent
CHOICES = {pinning: Cores({0}, {1}) for pinning in PINNINGS}


def run(*arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    # Without coverage, which the daemons under test would be measured with otherwise.
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={"PATH": path}
    )


def test_missing_requirements_are_named_in_one_line(tmp_path: Path) -> None:
    done = run("tests.benchmarks", path=str(tmp_path))

    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("wrk is missing: apt-get install wrk")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "there is no row 'nonsense'; the rows are http, idle,"),
        (["--pinning", "loosely"], "argument --pinning: invalid choice: 'loosely'"),
        (["http", "stop", "memory", "--pinning", UNPINNED], "not measured unpinned: memory, stop"),
        (["--rounds", "0"], "argument --rounds: must be 1 or more"),
    ],
)
def test_an_invalid_command_line_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        parse(arguments)

    assert raised.value.code == 2
    assert f"error: {message}" in capsys.readouterr().err.splitlines()[-1]


def test_each_row_that_floods_is_measured_pinned_and_unpinned_by_default() -> None:
    assert parse([]).pinnings == PINNINGS
    assert parse([]).chosen == list(ROWS)
    left = {row.name for row in ROWS} - {row.name for row in parse(["--pinning", UNPINNED]).chosen}
    assert left == {"burst", "start", "memory", "switches", "stop", "durable-waiting"}


def test_the_path_from_the_queue_to_the_handler_meets_its_bar() -> None:
    before = cpu_seconds_of_children()
    done = run("tests.benchmarks.alone", "queue", path="")
    # Not by the clock: on a busy machine the same work takes longer.
    took = cpu_seconds_of_children() - before

    assert done.stderr == ""
    assert float(done.stdout) > 0
    assert alone.EVENTS / took >= 400_000


def cpu_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_a_folder_in_memory_is_refused_for_durable_queues(tmp_path: Path) -> None:
    assert no_disk("/dev/shm") == "/dev/shm is in memory (tmpfs): --folder must be on a disk"
    assert "No such file or directory" in str(no_disk(str(tmp_path / "missing")))


@pytest.mark.parametrize("size", [1000, 27])
def test_a_waiting_file_has_the_requested_number_of_events(tmp_path: Path, size: int) -> None:
    with closing(
        Store(str(waiting_file(tmp_path, 2345, size)), create=False, busy_timeout=1)
    ) as store:
        assert store.count() == 2345
        assert [batch.events for batch in store.batches()][-1] == 2345 % size


@pytest.mark.parametrize(
    ("ours", "met"), [(50.0, True), (49.0, False), (60.0, True), (150.0, True)]
)
def test_a_bar_may_be_met_by_a_ratio_or_by_the_figure_itself(
    tmp_path: Path, ours: float, met: bool
) -> None:
    peer = 100.0 if ours < 60 else 1000.0
    bench = Bench({PINNED: CHOICES[PINNED]}, 1, 1, tmp_path)
    bench.figures["figure"]["daemonkit"] = [ours]
    bench.figures["figure"]["peer"] = [peer]
    bar = Bar("figure", "events/s", ("peer",), 0.5, enough=60)

    [line] = lines(bench, [Row("row", lambda bench: iter(()), (bar,))])

    assert line.bar == ">= 0.50 x or 60 events/s"
    assert line.met is met


def test_a_bar_for_a_latency_applies_to_the_fastest_peer(tmp_path: Path) -> None:
    bench = Bench({PINNED: CHOICES[PINNED]}, 1, 1, tmp_path)
    bench.figures["latency"].update(daemonkit=[10.0], slow=[20.0], fast=[8.0])
    bar = Bar("latency", "ms", ("slow", "fast"), 1.2, at_most=True)

    compared = lines(bench, [Row("row", lambda bench: iter(()), (bar,))])

    assert [(line.peer, line.bar, line.met) for line in compared] == [
        ("slow", "", None),
        ("fast", "<= 1.20 x", False),
    ]


def test_a_figure_without_a_bar_and_peers_is_shown(tmp_path: Path) -> None:
    bench = Bench({PINNED: CHOICES[PINNED]}, 1, 1, tmp_path)
    bench.figures["rate"].update(daemonkit=[10.0])
    (line,) = lines(bench, [Row("row", lambda bench: iter(()), (Bar("rate", "events/s"),))])

    assert (line.ours, line.bar, line.met) == (10.0, "", None)


def test_a_row_that_is_measured_pinned_and_unpinned_has_a_line_for_each(tmp_path: Path) -> None:
    bench = Bench(CHOICES, 1, 1, tmp_path)
    bench.figures["rate"]["daemonkit"] = [2.0]
    bench.figures["rate, unpinned"]["daemonkit"] = [1.0]
    bench.figures["size"]["daemonkit"] = [3.0]
    rows = [
        Row("rate", lambda bench: iter(()), (Bar("rate", "", (), 1.5),)),
        Row("size", lambda bench: iter(()), (Bar("size", "", (), 1.5),), pinnings=(PINNED,)),
    ]

    assert [(line.figure, line.ours, line.met) for line in lines(bench, rows)] == [
        ("rate", 2.0, True),
        ("rate, unpinned", 1.0, False),
        ("size", 3.0, True),
    ]


def started(peer: Peer) -> Server:
    return Server(peer, os.sched_getaffinity(0))


@pytest.mark.parametrize("peer", [DAEMONKIT, WAITRESS], ids=lambda peer: peer.name)
def test_events_are_counted_beside_a_thread_that_computes(peer: Peer) -> None:
    with started(computing(peer)) as server:
        watch = CoreWatch(server)
        check_answers(server)
        check_exactly(server, valid=5, invalid=1, crowd=2)

        assert watch.shares().pace > 0


def test_a_thread_computes_only_on_request() -> None:
    with started(DAEMONKIT) as server:
        check_answers(server)

        assert server.rounds() == 0


@pytest.mark.parametrize(
    ("peer", "lane", "without_token"),
    [
        (WITH_TOKEN, "open", 401),
        (WITH_META, "open", 200),
        (WITH_HOOK, "closed: a function that Flask calls with each request", 200),
    ],
    ids=["token", "meta", "hook"],
)
def test_events_are_counted_where_their_sender_is_checked(
    peer: Peer, lane: str, without_token: int
) -> None:
    with started(peer) as server:
        check_exactly(server, valid=5, invalid=1, crowd=2)

        assert server.status()["http"]["fast_lane"] == lane
        assert server.ask("POST", EVENTS, EVENT)[0] == without_token


def test_the_answers_to_hostile_requests_are_checked() -> None:
    with started(DAEMONKIT) as server:
        blank = b"\r\n" * 100
        assert max(pings_during(server, Hostile(lambda: blank, 3, (400,)), blank)) > 0
        with pytest.raises(CheckFailed, match=r"answers \['400'\] instead of \(413,\)"):
            pings_during(server, Hostile(lambda: blank, 1, (413,)), blank)


def test_the_output_of_wrk_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretender = tmp_path / "wrk"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def pretend(p99: int) -> None:
        errors = dict.fromkeys(("connect", "read", "write", "status", "timeout"), 0)
        summary = {"requests": 5, "microseconds": 2_000_000, "p99": p99, "errors": errors}
        pretender.write_text(f"#!/bin/sh\necho '{json.dumps(summary)}'\n")
        pretender.chmod(0o755)

    with started(WAITRESS) as server:
        pretend(1_700_000)
        for path in (EVENTS, EVENT_WITH_QUERY, HELLO):
            with (
                Wrk(server, 1, 4, path=path) as wrk,
                pytest.raises(CheckFailed, match=r"5 events answered, the server counted -5;"),
            ):
                wrk.result()
        # Pings leave no trace.
        with Wrk(server, 1, 4, path=PING) as wrk:
            flood = wrk.result()
        assert (flood.rate, flood.p99) == (2.5, 1.7)

        # Four connections, five answers in two seconds: most have waited for longer than that.
        pretend(1500)
        with Wrk(server, 1, 4, path=PING) as wrk:
            assert wrk.result().p99 == 1.6
