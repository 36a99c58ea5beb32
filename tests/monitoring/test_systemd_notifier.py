from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections.abc import Callable

import pytest

from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import SECRETS
from daemonkit.monitoring.health import DRAINING, RUNNING, STARTING, STOPPED, STOPPING, Health
from daemonkit.monitoring.systemd_notifier import (
    EXTEND_EVERY,
    FINAL_TIMEOUT,
    RETRY_DELAY,
    SystemdNotifier,
)
from daemonkit.system.systemd import NotifySocket
from daemonkit.types import Problem

BROKEN = Problem("broken")
RESTARTING = Problem("restarting", tolerable=True)
EXTEND = "EXTEND_TIMEOUT_USEC=15000000"


class FakeSocket(NotifySocket):
    """messages: what was sent; room: how many more messages it takes."""

    def __init__(self) -> None:
        super().__init__({})
        self.messages: list[str] = []
        self.room = math.inf
        self.open = True

    @property
    def is_open(self) -> bool:
        return self.open

    def send(self, message: str) -> bool:
        if self.room <= 0:
            return False
        self.room -= 1
        self.messages.append(message)
        return True

    def close(self) -> None:
        self.open = False

    def take(self) -> list[str]:
        """The messages sent since the last call."""
        taken, self.messages = self.messages, []
        return taken


@pytest.fixture
def sock() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def notifier(sock: FakeSocket, health: Health) -> SystemdNotifier:
    return SystemdNotifier(sock, health, None, logging.getLogger("test"))


def take_without_status(sock: FakeSocket) -> list[str]:
    return [message for message in sock.take() if not message.startswith("STATUS=")]


def test_each_phase_is_reported_once(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    reported = []
    for phase in (STARTING, RUNNING, DRAINING, STOPPING, STOPPED):
        health.enter(phase)
        notifier.run_due(1.0)
        notifier.run_due(1.0)
        reported.append(sock.take())

    assert reported == [
        ["STATUS=starting"],
        ["READY=1", "STATUS=running"],
        ["STOPPING=1", "STATUS=draining", EXTEND],
        ["STATUS=stopping"],
        ["STATUS=stopped"],
    ]


@pytest.mark.parametrize("phase", [STOPPING, STOPPED])
def test_a_phase_that_was_missed_does_not_hide_the_stop(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health, phase: str
) -> None:
    health.enter(RUNNING)
    notifier.run_due(1.0)
    sock.take()
    health.enter(phase)
    notifier.run_due(1.0)

    assert "STOPPING=1" in sock.take()


def test_a_secret_in_a_problem_is_not_sent_to_systemd(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    SECRETS.add(["hush\nhush"])
    health.add_source(lambda: [Problem("no login with hush\nhush")])
    notifier.run_due(1.0)

    assert sock.take() == [f"STATUS=starting; no login with {HIDDEN}"]


def test_a_status_of_several_lines_becomes_one_and_only_changes_are_sent(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    problems = [Problem("one\ntwo  three")]
    health.add_source(lambda: problems)
    for _ in range(2):
        notifier.run_due(1.0)
    problems.clear()
    notifier.run_due(1.0)

    assert sock.take() == ["STATUS=starting; one two three", "STATUS=starting"]


def test_without_a_watchdog_nothing_is_due(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    health.enter(RUNNING)

    assert notifier.run_due(1.0) == math.inf
    assert take_without_status(sock) == ["READY=1"]


def test_the_watchdog_is_fed_at_half_of_its_timeout(sock: FakeSocket, health: Health) -> None:
    notifier = SystemdNotifier(sock, health, 10.0, logging.getLogger("test"))
    health.enter(RUNNING)
    fed = {}
    for now in (100.0, 104.9, 105.0, 109.9, 110.0):
        notifier.run_due(now)
        fed[now] = "WATCHDOG=1" in sock.take()

    assert fed == {100.0: True, 104.9: False, 105.0: True, 109.9: False, 110.0: True}
    assert notifier.run_due(110.0) == 115.0


@pytest.mark.parametrize(
    ("phase", "problems", "fed"),
    [
        (RUNNING, [], True),
        (RUNNING, [RESTARTING], True),
        (RUNNING, [RESTARTING, BROKEN], False),
        (STARTING, [BROKEN], True),
        (STOPPING, [BROKEN], True),
    ],
)
def test_only_a_problem_that_is_not_tolerable_starves_the_watchdog_of_a_running_daemon(
    sock: FakeSocket, health: Health, phase: str, problems: list[Problem], fed: bool
) -> None:
    notifier = SystemdNotifier(sock, health, 10.0, logging.getLogger("test"))
    health.enter(phase)
    health.add_source(lambda: problems)
    notifier.run_due(1.0)

    assert ("WATCHDOG=1" in sock.take()) is fed


def test_the_timeout_is_extended_repeatedly_while_stopping(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    health.enter(RUNNING)
    notifier.run_due(100.0)
    health.enter(DRAINING)
    due = notifier.run_due(101.0)
    first = sock.take()
    notifier.run_due(due - 0.1)
    between = sock.take()
    health.enter(STOPPING)
    notifier.run_due(due)
    second = sock.take()
    health.enter(STOPPED)

    assert due == 101.0 + EXTEND_EVERY
    assert EXTEND in first
    assert between == []
    assert EXTEND in second
    assert notifier.run_due(due + EXTEND_EVERY) == math.inf
    assert take_without_status(sock) == []


def test_a_message_that_finds_no_room_is_sent_later_and_before_newer_ones(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    sock.room = 1
    health.enter(RUNNING)
    assert notifier.run_due(1.0) == 1.0 + RETRY_DELAY
    assert sock.take() == ["READY=1"]
    health.enter(DRAINING)
    assert notifier.run_due(2.0) == 2.0 + RETRY_DELAY
    sock.room = math.inf
    notifier.run_due(3.0)

    assert sock.take() == ["STOPPING=1", "STATUS=draining", EXTEND]


def test_a_reload_is_reported_with_its_time_and_its_end(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    health.enter(RUNNING)
    notifier.run_due(1.0)
    sock.take()
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    notifier.reloaded()
    notifier.run_due(1.0)
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    reloading, ready = sock.take()

    found = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", reloading)
    assert found is not None
    assert before <= int(found[1]) <= after
    assert ready == "READY=1"


def test_a_reload_that_ends_while_draining_does_not_report_ready(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    health.enter(DRAINING)
    notifier.run_due(1.0)
    sock.take()
    notifier.reloaded()
    notifier.run_due(1.0)

    assert sock.take() == []


def test_a_change_of_health_is_sent_at_once_and_the_last_one_before_the_stop(
    notifier: SystemdNotifier,
    sock: FakeSocket,
    health: Health,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.monitoring.systemd_notifier.FINAL_TIMEOUT", 30)
    sent = threading.Event()
    _call_after_send(sock, lambda message: sent.set() if message == "STATUS=running" else None)
    notifier.start()
    health.enter(RUNNING)
    arrived = sent.wait(30)
    health.enter(STOPPED)
    notifier.request_stop()

    assert arrived
    assert notifier.join(30)
    assert notifier._all_sent.is_set()
    assert sock.messages[-2:] == ["STOPPING=1", "STATUS=stopped"]
    assert not sock.open
    assert notifier.problems() == []


def _call_after_send(sock: FakeSocket, function: Callable[[str], object]) -> None:
    send = sock.send

    def send_and_call(message: str) -> bool:
        sent = send(message)
        function(message)
        return sent

    sock.send = send_and_call  # type: ignore[method-assign]


def test_a_socket_that_stays_full_delays_the_stop_only_briefly(
    notifier: SystemdNotifier, sock: FakeSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    monkeypatch.setattr(notifier._all_sent, "wait", waits.append)
    sock.room = 0
    notifier.start()
    notifier.request_stop()

    assert notifier.join(30)
    assert waits == [FINAL_TIMEOUT]
    assert sock.messages == []


def test_without_a_socket_no_thread_is_started(
    notifier: SystemdNotifier, sock: FakeSocket, health: Health
) -> None:
    sock.open = False
    notifier.start()
    health.enter(RUNNING)
    notifier.request_stop()

    assert notifier.running_threads() == []
    assert notifier.join(0)
    assert notifier.problems() == []
