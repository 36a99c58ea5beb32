"""What a durable queue does when its disk is full, slow, broken or loses power, and when its file
is damaged or removed."""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from daemonkit.events.durable.database import MIGRATIONS
from daemonkit.events.durable.rows import STRIDE, to_row
from daemonkit.events.durable.store import Store
from daemonkit.events.entry import Batch

from .disks import Disk, SlowSync, fill_up, quota, run, tmpfs
from .durable import AT_THE_GATE, ONE_BY_ONE, Queue, send_numbers, wait_drained
from .process import Process, seconds_of
from .senders import Sender, sending

Run = Callable[..., Process]

# The power is cut

WRITER = """
import logging, os, sys, threading, time
from daemonkit.events.durable import file
from daemonkit.events.entry import Batch
from daemonkit.events.durable.queue import DurableQueue
from daemonkit.events.durable.store import Store

path, ack_batch, synchronous, pad = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

class Patched(Store):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.db.execute(f'PRAGMA synchronous = {synchronous}')

file.Store = Patched
queue = DurableQueue(path, logging.getLogger(), ack_batch=ack_batch)
queue.start()

def put(number):
    while True:
        numbers = range(number, number + 3)
        queue.put_many(Batch(numbers, [b'%d' % n + b' ' * pad for n in numbers]))
        os.write(1, b''.join(b'%d\\n' % n for n in numbers))
        number += 3

def handle():
    while True:
        entry = queue.get()
        os.write(1, b'-%d\\n' % entry.event)
        queue.done([entry])
        time.sleep(0.002)

for target, arguments in (put, (10**6,)), (put, (2 * 10**6,)), (handle, ()):
    threading.Thread(target=target, args=arguments).start()
"""


def cut_power_of_a_writer(
    folder: Path, moment: float, synchronous: str = "FULL", pad: int = 15_000
) -> tuple[set[int], set[int], set[int]]:
    """Cut the power `moment` seconds after the first event was acknowledged; returns what was
    acknowledged by then, what was handled, and what is in the file when the power is back.

    pad: bytes of an event; long ones cause frequent checkpoints.
    """
    folder.mkdir()
    disk, output = Disk(folder), folder / "acknowledged"
    try:
        path = disk.folder / "events.db"
        with (
            output.open("wb") as stdout,
            subprocess.Popen(
                [sys.executable, "-c", WRITER, path, str(ACK_BATCH), synchronous, str(pad)],
                stdout=stdout,
                stderr=subprocess.DEVNULL,
            ) as writer,
        ):
            try:
                while not numbers_in(output):
                    assert writer.poll() is None, "the writer has failed"
                    time.sleep(0.001)
                time.sleep(moment)
                # Not afterwards: a sync in progress at the cut may report success without effect.
                numbers = numbers_in(output)
                disk.cut_power()
            finally:
                writer.kill()
        disk.start_again()
        acknowledged = {number for number in numbers if number > 0}
        handled = {-number for number in numbers_in(output) if number < 0}
        return acknowledged, handled, stored_numbers(path)
    finally:
        disk.close()


def numbers_in(file: Path) -> list[int]:
    """The numbers on complete lines."""
    return [int(line) for line in file.read_bytes().split(b"\n")[:-1]]


ACK_BATCH = 5
UNSYNCED = 100
"""Events handled in a fifth of a second; on a fast disk a twentieth would do."""


def stored_numbers(path: Path) -> set[int]:
    """What is in the file and isn't acknowledged."""
    store = Store(str(path), create=True, busy_timeout=0.0)
    try:
        return {
            int(line)
            for batch in store.batches()
            for number, line in enumerate(batch.lines.split(b"\n"))
            if number not in store.handled_of(batch.id)
        }
    finally:
        store.close()


@pytest.mark.timeout(600)
def test_a_power_cut_loses_no_event_that_was_acknowledged(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    chance, acknowledged, again = random.Random(1), 0, []
    for number in range(max(1, pytestconfig.getoption("cycles") // 2)):
        acknowledged_now, handled, kept = cut_power_of_a_writer(
            tmp_path / str(number), chance.uniform(0, 0.3)
        )
        acknowledged += len(acknowledged_now)
        again.append(len(handled & kept))

        assert acknowledged_now <= kept | handled
        # In work, handled but not acknowledged, and acknowledged but not yet synced.
        assert again[-1] <= 1 + ACK_BATCH - 1 + 1 + UNSYNCED
    print(f"{len(again)} power cuts: {acknowledged} acknowledged; to be handled again: {again}")


@pytest.mark.timeout(600)
def test_a_power_cut_without_syncs_loses_events(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The test above can fail: without syncs, events are lost."""
    acknowledged, lost = 0, []
    for number in range(max(1, pytestconfig.getoption("cycles") // 4)):
        acknowledged_now, handled, kept = cut_power_of_a_writer(
            tmp_path / str(number), 0.02, "NORMAL", 100
        )
        acknowledged += len(acknowledged_now)
        lost.append(len(acknowledged_now - kept - handled))

    print(f"{len(lost)} power cuts without syncs: {acknowledged} acknowledged, lost {lost}")
    assert max(lost) > 0


def test_a_disk_failure_is_reported_and_a_stop_does_not_wait_for_it(
    tmp_path: Path, run_app: Run
) -> None:
    disk = Disk(tmp_path)
    queue = Queue(disk.folder / "events.db", tmp_path, run_app)
    daemon = queue.start(AT_THE_GATE)
    try:
        send_numbers(daemon.wait_ready(), range(200))
        disk.cut_power()
        refused, ping = daemon.post("/events", json=1), daemon.get("/ping")
        queue.open_gate()
        daemon.wait_until(lambda: len(queue.handled()) >= 100)
        took = seconds_of(daemon.stop)

        assert refused.status_code == ping.status_code == 503
        assert refused.json()["message"].startswith("The event queue's file can't be written: ")
        assert ping.text.startswith("the event queue's file can't be written: ")
        assert took < daemon.soon(3)
        assert "Traceback" not in daemon.out
        disk.start_again()
        daemon = queue.start(ONE_BY_ONE)
        wait_drained(daemon.wait_ready())
        assert daemon.stop() == 0
        assert set(queue.numbers()) == set(range(200))
    finally:
        # Otherwise it can't be unmounted.
        daemon.close()
        disk.close()


# The disk is full


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of a mebibyte."""
    with tmpfs(tmp_path / "small", "size=1m") as folder:
        yield folder


@pytest.fixture(params=["disk", "quota"])
def small_queue(small: Path, tmp_path: Path, run_app: Run, request: pytest.FixtureRequest) -> Queue:
    """Its queue; with a quota, the disk itself seems to be large."""
    environ = quota(tmp_path) if request.param == "quota" else {}
    return Queue(small / "events.db", tmp_path, run_app, environ)


def post_until_refused(daemon: Process) -> tuple[list[int], object]:
    """Send numbers as long events; returns those that were accepted, and the first other answer."""
    taken: list[int] = []
    while True:
        answer = daemon.post("/events", data=b"%d%3000s" % (len(taken), b""))
        if answer.status_code != 200:
            return taken, answer
        taken.append(len(taken))


@pytest.mark.parametrize("whose", ["others'", "its own"])
def test_a_full_disk_is_reported_and_all_accepted_events_are_handled_and_acknowledged(
    small: Path, small_queue: Queue, whose: str
) -> None:
    queue = small_queue
    # Acknowledging one by one takes the most room.
    daemon = queue.start(AT_THE_GATE, "ack_batch=1").wait_ready()
    before = range(-200, 0) if whose == "others'" else range(0)
    if before:
        # All of it is still in the write-ahead log, and has no room in the file.
        send_numbers(daemon, before, pad=800)
        fill_up(small)
    taken, refused = post_until_refused(daemon)
    ping = daemon.get("/ping")
    filler = fill_up(small)
    queue.open_gate()
    wait_drained(daemon)
    daemon.wait_until(lambda: queue.left() == 0, "all of them acknowledged")
    handled = queue.numbers()
    filler.unlink()
    daemon.wait_until(lambda: daemon.post("/events", json=-1).status_code == 200)

    assert refused.status_code == 503
    assert refused.json()["message"] == f"The disk of the event queue is full ({queue.path})"
    assert int(refused.headers["Retry-After"]) > 0
    assert (ping.status_code, ping.text) == (
        503,
        f"the disk of the event queue is full ({queue.path})\n",
    )
    assert handled == [*before, *taken]
    daemon.wait_until(lambda: daemon.get("/ping").text == "OK\n")
    assert daemon.stop() == 0
    assert queue.left() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_on_a_full_disk_a_daemon_starts_and_handles_what_is_stored(
    small: Path, small_queue: Queue, number: signal.Signals
) -> None:
    queue = small_queue
    daemon = queue.start(ONE_BY_ONE, "ack_batch=5", pause=0.02).wait_ready()
    send_numbers(daemon, range(100))
    daemon.wait_until(lambda: len(queue.handled()) >= 5)
    filler = fill_up(small)
    daemon.stop(number)
    filler.unlink()
    fill_up(small)
    daemon = queue.start(ONE_BY_ONE).wait_ready()
    wait_drained(daemon)
    daemon.wait_until(lambda: queue.left() == 0, "all of them acknowledged")

    handled = queue.numbers()
    assert list(dict.fromkeys(handled)) == list(range(100))
    assert len(handled) - 100 <= (0 if number == signal.SIGTERM else 1 + 5 - 1 + 1)
    assert daemon.stop() == 0


def test_without_any_space_a_daemon_that_cannot_start_names_the_cause(
    small: Path, small_queue: Queue
) -> None:
    fill_up(small)
    daemon = small_queue.start(ONE_BY_ONE)

    assert daemon.wait() == 3
    assert daemon.err == (
        f"app: cannot open the event queue {small_queue.path}: database or disk is full\n"
    )


LIMITED = (
    AT_THE_GATE
    + f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({2**20}, {2**20}))\n"
)
"""Does what `ulimit -f` does."""


@pytest.mark.parametrize(
    ("text", "settings", "limit"),
    [
        (AT_THE_GATE, [f"queue_max_disk={2**20}"], "queue_max_disk, 1048576 bytes"),
        (LIMITED, [], "ulimit -f, 1048576 bytes"),
    ],
    ids=["queue_max_disk", "ulimit"],
)
def test_a_file_of_queue_max_disk_bytes_is_reported_and_handled_events_make_room(
    queue: Queue, text: str, settings: list[str], limit: str
) -> None:
    daemon = queue.start(text, *settings).wait_ready()
    taken, refused = post_until_refused(daemon)
    size = queue.path.stat().st_size
    queue.open_gate()
    wait_drained(daemon)
    daemon.wait_until(lambda: queue.left() == 0, "all of them acknowledged")
    handled = queue.numbers()
    again = daemon.post("/events", data=b"%d%3000s" % (-1, b""))

    assert (refused.status_code, refused.json()["message"]) == (
        503,
        f"The event queue is full ({limit})",
    )
    assert "Retry-After" in refused.headers
    assert size <= 2**20
    assert handled == taken
    assert len(taken) > 150
    assert again.status_code == 200
    assert daemon.stop() == 0


# The disk is slow


@pytest.mark.parametrize(
    # Without the fast lane, `http_threads` threads wait for the disk, and requests for them.
    ("setting", "events_of_a_sync", "ping"),
    [("true", 4, 1.5), ("false", 1, 8)],
)
def test_on_a_slow_disk_events_are_answered_after_their_sync_and_share_it(
    queue: Queue, tmp_path: Path, setting: str, events_of_a_sync: int, ping: float
) -> None:
    slow = SlowSync(tmp_path, 40)
    daemon = queue.start(ONE_BY_ONE, f"fast_events={setting}", **slow.environ).wait_ready()
    clients = [TimedSender(number) for number in range(24)]
    before, waited = slow.count(), []
    with sending(clients, daemon.port):
        until = time.monotonic() + 0.6
        while time.monotonic() < until:
            for path in "/ping", "/status":
                waited.append(seconds_of(lambda: daemon.get(path).raise_for_status()))  # noqa: B023
    took = [second for client in clients for second in client.took]
    syncs = slow.count() - before
    wait_drained(daemon)

    assert min(took) >= 0.04
    assert len(took) > events_of_a_sync * syncs > 0
    assert max(waited) < daemon.soon(ping)
    assert daemon.stop() == 0
    assert sorted(queue.numbers()) == sorted(n for client in clients for n in client.acknowledged)


class TimedSender(Sender):
    """Measures how long each answer takes."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.took: list[float] = []

    def _send(self, sock: object, answers: object) -> None:
        self.took.append(seconds_of(lambda: super(TimedSender, self)._send(sock, answers)))


# The file is damaged, or not a queue


def database(path: Path, batches: int = 20) -> bytes:
    """Make the file of a queue with events in it."""
    store = Store(str(path), create=True, busy_timeout=0.0)
    for number in range(1, batches + 1):
        lines = [b'{"number": %d, "text": "%s"}' % (n, b"x" * 500) for n in range(100)]
        store.add(to_row(Batch(lines, lines), number * STRIDE))
    store.close()
    return path.read_bytes()


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


def overwritten(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[: middle - 30_000] + noise(60_000) + data[middle + 30_000 :]


@pytest.mark.parametrize(
    "damage",
    [lambda data: noise(100_000), lambda data: data[: len(data) // 2], overwritten],
    ids=["random bytes", "torn", "overwritten"],
)
def test_a_file_that_is_damaged_or_not_a_database_is_moved_aside(
    queue: Queue, damage: Callable[[bytes], bytes]
) -> None:
    damaged = damage(database(queue.path))
    queue.path.write_bytes(damaged)
    daemon = queue.start(ONE_BY_ONE).wait_ready()
    aside = Path(
        daemon.wait_for(
            rf"CRITICAL +The event queue {queue.path} can't be read \(.+\): moved it to (.+) "
            "and started an empty one\n"
        )[1]
    )
    daemon.send_event(1)
    wait_drained(daemon)

    assert re.fullmatch(r"events\.db\.broken-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", aside.name)
    assert aside.read_bytes() == damaged
    assert daemon.stop() == 0
    assert queue.numbers() == [1]


def test_an_empty_file_is_an_empty_queue(queue: Queue) -> None:
    queue.path.touch()
    daemon = queue.start(ONE_BY_ONE).wait_ready()
    daemon.send_event(1)
    wait_drained(daemon)

    assert daemon.stop() == 0
    assert "CRITICAL" not in daemon.out
    assert queue.numbers() == [1]


def foreign(path: Path) -> str:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE accounts (name)")
    connection.close()
    return f"{path} is the database of another program, not an event queue"


def newer(path: Path) -> str:
    database(path, batches=1)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    return (
        f"the event queue {path} has format {len(MIGRATIONS) + 1}, and this version of "
        f"daemonkit supports up to {len(MIGRATIONS)}; it was written by a newer version"
    )


def folder(path: Path) -> str:
    path.mkdir()
    return f"cannot open the event queue {path}: it is a folder"


def missing(path: Path) -> str:
    path.parent.rmdir()
    return f"cannot open the event queue {path}: there is no folder {path.parent}"


def read_only(path: Path) -> str:
    database(path, batches=1)
    if os.geteuid() == 0:
        run("mount", "-o", "remount,ro", path.parent)
    else:
        path.parent.chmod(0o555)
    return f"cannot open the event queue {path}: the folder {path.parent} can't be written to"


def test_a_file_that_is_inaccessible_or_not_a_queue_is_reported_and_left_alone(
    tmp_path: Path, run_app: Run
) -> None:
    place = tmp_path / "read_only"
    with tmpfs(place, "size=1m") if os.geteuid() == 0 else nullcontext():
        started = []
        for make in foreign, newer, folder, missing, read_only:
            place = tmp_path / make.__name__
            place.mkdir(exist_ok=True)
            queue = Queue(place / "events.db", tmp_path, run_app)
            message, before = make(queue.path), contents(place)
            started.append((queue.start(ONE_BY_ONE), message, place, before))
        for daemon, message, place, before in started:
            assert daemon.wait() == 3
            assert daemon.err == f"app: {message}\n"
            assert "Traceback" not in daemon.out
            assert contents(place) == before


def contents(place: Path) -> dict[str, bytes]:
    """The files of a folder, except lock files."""
    return {
        path.name: path.read_bytes()
        for path in place.glob("*")
        if path.is_file() and not path.name.endswith(("-lock", "-reserve"))
    }


# The file is removed


def removed(path: Path) -> str:
    path.unlink()
    return f"{path} was removed"


def replaced(path: Path) -> str:
    other = path.with_name("other")
    database(other, batches=1)
    other.rename(path)
    return f"{path} was replaced"


def log_removed(path: Path) -> str:
    log = path.with_name(f"{path.name}-wal")
    log.unlink()
    return f"{log} was removed"


@pytest.mark.parametrize("remove", [removed, replaced, log_removed])
def test_a_removed_file_is_reported_at_once_and_accepted_events_are_handled(
    queue: Queue, remove: Callable[[Path], str]
) -> None:
    daemon = queue.start(AT_THE_GATE).wait_ready()
    for number in range(3):
        daemon.send_event(number)
    problem = remove(queue.path)
    if remove is not log_removed:
        # Before the next check.
        assert daemon.post("/events", json=3).status_code == 503
    daemon.wait_until(lambda: daemon.get("/ping").status_code == 503)
    refused, ping = daemon.post("/events", json=3), daemon.get("/ping")
    shown = daemon.status()["problems"]
    queue.open_gate()
    wait_drained(daemon)

    assert refused.status_code == 503
    assert problem in refused.json()["message"]
    assert problem in ping.text
    assert any(problem in text for text in shown)
    assert queue.numbers() == [0, 1, 2]
    assert daemon.stop() == 0


def test_events_accepted_while_the_log_was_gone_survive_a_kill(queue: Queue) -> None:
    daemon = queue.start(AT_THE_GATE).wait_ready()
    daemon.send_event(0)
    log_removed(queue.path)
    taken = 1
    while daemon.post("/events", json=taken).status_code == 200:
        taken += 1
    daemon.close()
    again = queue.start(ONE_BY_ONE).wait_ready()
    wait_drained(again)

    assert queue.numbers() == list(range(taken))
    assert again.stop() == 0
