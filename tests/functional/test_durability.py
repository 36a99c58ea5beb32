"""What a durable queue promises while its daemon is killed, stopped and restarted.

An event that was answered with 200 is handled at least once.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from .durable import HEAD, ONE_BY_ONE, Queue, send_numbers, wait_drained
from .process import Process
from .senders import NUMBERS, DatagramSender, Sender, sending
from .test_load import frozen

ACK_BATCH = 20
BATCHES = HEAD + (
    "\n@app.on_event(threads=3, batch=4)\ndef handle(events):\n"
    "    for event in events:\n        note(event)\n    time.sleep(pause)\n"
)


def senders() -> list[Sender]:
    return [
        Sender(1),
        Sender(2),
        Sender(3, ahead=8),
        Sender(4, at_once=20),
        DatagramSender(5),
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("text", "at_work"), [(ONE_BY_ONE, 1), (BATCHES, 3 * 4)])
def test_a_daemon_killed_repeatedly_under_load_loses_nothing(
    queue: Queue, text: str, at_work: int, pytestconfig: pytest.Config
) -> None:
    chance, clients, runs = random.Random(at_work), senders(), [0]
    for cycle in range(max(1, pytestconfig.getoption("cycles") // 2)):
        pause = chance.choice([0, 0.0005])
        daemon = queue.start(text, f"ack_batch={ACK_BATCH}", pause=pause)
        # Also while it reads what the previous run has left.
        if cycle % 4 == 3:
            daemon.wait_for(" Starting\n")
            time.sleep(chance.uniform(0, 0.1))
            daemon.close()
        else:
            with sending(clients, daemon.wait_ready().port):
                time.sleep(chance.uniform(0, 0.15))
                daemon.close()
        runs.append(len(queue.handled()))
    daemon = queue.start(text).wait_ready()
    wait_drained(daemon)

    handled = queue.numbers()
    acknowledged = [number for client in clients for number in client.acknowledged]
    again = handled_again(handled, runs)
    print(
        f"{len(runs) - 1} kills: {len(acknowledged)} acknowledged, {len(set(handled))} handled, "
        f"{sum(again)} of them again, at most {max(again)} after a kill"
    )
    assert daemon.stop() == 0
    assert set(acknowledged) <= set(handled)
    assert all(number < clients[number // NUMBERS - 1].next for number in handled)
    # In work, and handled but not acknowledged.
    assert max(again) <= at_work + ACK_BATCH - 1 + at_work
    assert queue.left() == 0
    if at_work == 1:
        assert_in_order(handled, clients)


def handled_again(handled: Sequence[int], runs: Sequence[int]) -> list[int]:
    """How many events of each run of the daemon a later one handled again; `runs`: where each
    begins in `handled`."""
    again, known = [0] * len(runs), dict[int, int]()
    for run, (start, stop) in enumerate(zip(runs, [*runs[1:], len(handled)], strict=True)):
        for number in handled[start:stop]:
            if number in known:
                assert known[number] < run, f"{number} was handled twice without a kill"
                again[known[number]] += 1
            known[number] = run
    return again


def assert_in_order(handled: Sequence[int], clients: Sequence[Sender]) -> None:
    """Each sender's events were first handled in the order in which they were sent."""
    for client in clients:
        firsts = list(dict.fromkeys(n for n in handled if n // NUMBERS * NUMBERS == client.first))
        assert firsts == sorted(firsts)


def test_a_daemon_frozen_under_load_loses_nothing_and_handles_nothing_twice(queue: Queue) -> None:
    daemon, clients = queue.start(ONE_BY_ONE, pause=0.0001).wait_ready(), senders()
    with sending(clients, daemon.port):
        for _ in range(5):
            before = sum(len(client.acknowledged) for client in clients)
            daemon.wait_until(
                lambda: sum(len(client.acknowledged) for client in clients) > before + 50  # noqa: B023
            )
            with frozen(daemon):
                time.sleep(0.1)
    wait_drained(daemon)
    handled = queue.numbers()

    assert {number for client in clients for number in client.acknowledged} <= set(handled)
    assert len(handled) == len(set(handled))
    assert_in_order(handled, clients)
    assert daemon.stop() == 0
    assert queue.left() == 0


def test_a_daemon_stopped_with_events_waiting_exits_at_once_and_the_next_start_continues(
    queue: Queue,
) -> None:
    daemon = queue.start(ONE_BY_ONE, pause=0.01).wait_ready()
    for first in range(0, 3000, 1000):
        send_numbers(daemon, range(first, first + 1000))
    daemon.wait_until(lambda: len(queue.handled()) >= 5)
    daemon.stop()
    before, left = len(queue.handled()), queue.left()
    again = queue.start(ONE_BY_ONE).wait_ready()
    wait_drained(again)

    assert daemon.wait() == 0
    # All of them take half a minute.
    assert before < 1500
    assert left == 3000 - before
    assert queue.numbers() == list(range(3000))
    assert again.stop() == 0
    assert queue.left() == 0


FAILS = HEAD + (
    "\n@app.on_event(retries=2, backoff=0.1)\ndef handle(event, meta):\n"
    "    note(meta.attempt)\n    raise ValueError(f'no {event}')\n"
)


def test_attempts_are_counted_across_a_kill_until_the_event_is_a_dead_letter(
    queue: Queue,
) -> None:
    # Longer than the restart takes, so that only the first attempt is before it.
    text, began = FAILS.replace("backoff=0.1", "backoff=3"), time.time()
    daemon = queue.start(text).wait_ready()
    daemon.send_event("x")
    daemon.wait_until(lambda: failed(queue.path))
    daemon.stop(signal.SIGKILL)
    before = failed(queue.path)
    daemon = queue.start(FAILS).wait_ready()
    daemon.wait_until(lambda: daemon.status()["events"]["dead"] == 1)
    counts = daemon.status()["events"]
    assert daemon.stop() == 0

    assert queue.handled() == ["1", "2", "3"]
    assert [(row["attempts"], row["due"] is None) for row in before] == [(1, False)]
    (letter,) = failed(queue.path)
    assert (letter["due"], letter["attempts"], letter["error"]) == (None, 3, "ValueError: no x")
    assert (letter["source"], letter["line"]) == ("http", b'"x"')
    assert letter["traceback"].startswith("Traceback (most recent call last):\n")
    assert "raise ValueError(f'no {event}')" in letter["traceback"]
    assert began < letter["received"] < letter["first_failed"] < letter["last_failed"] < time.time()
    assert letter["first_failed"] == before[0]["first_failed"]
    assert (counts["waiting"], counts["retrying"], counts["failed"]) == (0, 0, 2)
    assert queue.left() == 0


KNOWS_NO_KIND = HEAD + (
    "\n@app.on_event\ndef handle(event):\n    note(event)\n    if isinstance(event, dict):\n"
    "        raise ValueError(f\"unknown kind {event['kind']}\")\n"
)


def test_an_error_s_text_that_cannot_be_stored_is_replaced_and_blocks_nothing(
    queue: Queue,
) -> None:
    event = b'{"kind": "\\ud800"}'
    # If unsaved results piled up, it would stop accepting events.
    daemon = queue.start(KNOWS_NO_KIND, "queue_size=100").wait_ready()
    assert daemon.post("/events", data=event).status_code == 200
    for number in range(300):
        daemon.wait_until(lambda: daemon.post("/events", json=number).status_code == 200)  # noqa: B023
    wait_drained(daemon)
    daemon.wait_until(lambda: queue.left() == 0, "all of them acknowledged")
    ping = daemon.get("/ping")
    counts = daemon.status()["events"]
    listed = subprocess.run(
        [sys.executable, "-m", "daemonkit", "events", "--queue", queue.path, "list"],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    ).stdout

    assert (ping.status_code, ping.text) == (200, "OK\n")
    assert (counts["dead"], counts["waiting"], counts["handled"]) == (1, 0, 300)
    assert daemon.stop() == 0
    assert re.search(r"^\d+ +dead .+ValueError: unknown kind \\ud800 +\{", listed, re.MULTILINE)
    (letter,) = failed(queue.path)
    assert letter["line"] == event
    assert str(letter["traceback"]).endswith("ValueError: unknown kind \\ud800\n")
    again = queue.start(KNOWS_NO_KIND).wait_ready()
    wait_drained(again)
    assert again.stop() == 0
    assert queue.handled() == ['{"kind": "\\ud800"}', *map(str, range(300))]


def failed(path: Path) -> list[dict[str, object]]:
    """The rows of the table `failed`."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    database.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in database.execute("SELECT * FROM failed")]
    finally:
        database.close()


def test_a_second_daemon_names_the_owner_of_the_file_until_that_is_killed(queue: Queue) -> None:
    first = queue.start(ONE_BY_ONE).wait_ready()
    second = queue.start(ONE_BY_ONE)

    assert second.wait() == 3
    assert f"is in use by process {first.popen.pid} (app, since " in second.err
    assert second.err.count("\n") == 1
    first.send_event(1)
    first.close()
    third = queue.start(ONE_BY_ONE).wait_ready()
    third.send_event(2)
    wait_drained(third)
    assert third.stop() == 0
    assert set(queue.numbers()) == {1, 2}


def test_two_daemons_with_a_file_each_leave_each_other_alone(
    tmp_path: Path, run_app: Callable[..., Process]
) -> None:
    queues = []
    for name in "one", "other":
        (tmp_path / name).mkdir()
        queues.append(Queue(tmp_path / f"{name}.db", tmp_path / name, run_app))
    daemons = [queue.start(ONE_BY_ONE) for queue in queues]
    for number, daemon in enumerate(daemons):
        daemon.wait_ready().send_event(number)
    for daemon in daemons:
        wait_drained(daemon)

    assert [daemon.stop() for daemon in daemons] == [0, 0]
    assert [queue.numbers() for queue in queues] == [[0], [1]]
