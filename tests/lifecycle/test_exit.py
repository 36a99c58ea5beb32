from __future__ import annotations

import threading
import time

import pytest

from daemonkit.lifecycle.exit import Deadline, briefly, print_if_possible


def test_a_deadline_counts_down_and_keeps_a_reserve() -> None:
    deadline = Deadline(10)

    assert 9 < deadline.left() <= 10
    assert 4 < deadline.left(keep=5) <= 5
    assert deadline.left(keep=50) == 0


def test_what_blocks_or_raises_is_waited_for_only_briefly() -> None:
    release, done = threading.Event(), []
    before = time.monotonic()
    briefly(lambda: release.wait(10), lambda: 1 / 0, lambda: done.append(1))
    took = time.monotonic() - before
    release.set()

    assert done == [1]
    assert took < 1


def test_stderr_that_is_closed_or_full_is_neither_waited_for_nor_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError

    monkeypatch.setattr("daemonkit.lifecycle.exit.os.write", refuse)
    print_if_possible("line\n")
    monkeypatch.setattr("daemonkit.lifecycle.exit.select.select", lambda *arguments: ([], [], []))
    print_if_possible("line\n")
