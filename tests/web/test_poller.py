from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit.web.poller import READ, WRITE, Poller


class Item:
    """Owns a socket, and records when it is checked."""

    accepting = False

    def __init__(self, sock: socket.socket, checked: list[Any] | None = None) -> None:
        self.sock = sock
        self._fileno: int | None = sock.fileno()
        self._checked = [] if checked is None else checked
        self.reads, self.writes = True, False
        self.errors = 0

    def readable(self) -> bool:
        self._checked.append(self)
        return self.reads

    def writable(self) -> bool:
        return self.writes

    def handle_error(self) -> None:
        self.errors += 1


@pytest.fixture(params=[True, False], ids=["epoll", "poll"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    if request.param and not hasattr(select, "epoll"):
        pytest.skip("there is no epoll here")
    monkeypatch.setattr("daemonkit.web.poller._HAS_EPOLL", request.param)
    poller = Poller()
    yield poller
    poller.close()


@pytest.fixture
def pairs() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    made: list[socket.socket] = []

    def pair() -> tuple[socket.socket, socket.socket]:
        left, right = socket.socketpair()
        made.extend((left, right))
        return left, right

    yield pair
    for sock in made:
        sock.close()


def test_a_descriptor_is_reported_for_what_its_owner_waits_for(poller: Poller, pairs: Any) -> None:
    left, right = pairs()
    item = Item(left)
    poller.recheck(item)
    assert poller.wait(0) == []

    right.send(b"x")
    assert poller.wait(0) == [(left.fileno(), READ)]

    item.writes = True
    poller.recheck(item)
    assert poller.wait(0) == [(left.fileno(), READ | WRITE)]

    item.reads = False
    poller.recheck(item)
    assert poller.wait(0) == [(left.fileno(), WRITE)]

    item.writes = False
    poller.recheck(item)
    assert poller.wait(0) == []


def test_an_item_is_checked_once_for_each_recheck(poller: Poller, pairs: Any) -> None:
    checked: list[Any] = []
    item = Item(pairs()[0], checked)
    poller.recheck(item)
    poller.recheck(item)
    poller.wait(0)
    assert poller.rechecked == {item}
    poller.wait(0)

    assert checked == [item]
    assert poller.rechecked == set()


def test_a_listening_socket_is_not_waited_for_to_write(poller: Poller, pairs: Any) -> None:
    item = Item(pairs()[0])
    item.accepting = item.writes = True
    poller.recheck(item)

    assert poller.wait(0) == []


def test_a_forgotten_descriptor_is_not_reported(poller: Poller, pairs: Any) -> None:
    left, right = pairs()
    right.send(b"x")
    poller.recheck(Item(left))
    assert poller.wait(0) == [(left.fileno(), READ)]

    poller.forget(left.fileno())
    poller.forget(left.fileno())
    assert poller.wait(0) == []

    # Its number may be reused.
    poller.recheck(Item(left))
    assert poller.wait(0) == [(left.fileno(), READ)]


def test_a_new_poller_needs_a_wake_up_and_a_closed_one_keeps_no_descriptor() -> None:
    poller = Poller()
    assert not poller.is_woken
    poller.close()

    assert not hasattr(select, "epoll") or poller._poll.closed


def test_a_closed_item_is_skipped(poller: Poller, pairs: Any) -> None:
    checked: list[Any] = []
    item = Item(pairs()[0], checked)
    item._fileno = None
    poller.recheck(item)

    assert poller.wait(0) == []
    assert checked == []


def test_an_item_whose_check_fails_handles_it_and_the_others_are_checked(
    poller: Poller, pairs: Any
) -> None:
    socks = [pairs() for _ in range(5)]
    items = [Item(left) for left, _ in socks]
    items[2].readable = lambda: 1 / 0  # type: ignore[assignment]
    for item, (_, right) in zip(items, socks, strict=True):
        right.send(b"x")
        poller.recheck(item)

    assert {fd for fd, _ in poller.wait(0)} == {i._fileno for i in items if i is not items[2]}
    assert [item.errors for item in items] == [0, 0, 1, 0, 0]


def test_a_change_during_the_checks_wakes_the_loop_again(poller: Poller, pairs: Any) -> None:
    item = Item(pairs()[0])
    seen: list[bool] = []
    item.readable = lambda: seen.append(poller.is_woken) or True  # type: ignore[func-returns-value,method-assign]
    poller.is_woken = True
    poller.recheck(item)
    poller.wait(0)

    assert seen == [False]


@pytest.mark.parametrize(("timeout", "milliseconds"), [(None, None), (1.5, 1500)])
def test_the_timeout_is_in_seconds(
    poller: Poller, timeout: float | None, milliseconds: float | None
) -> None:
    class Recorder:
        def poll(self, timeout: float | None) -> list[Any]:
            timeouts.append(timeout)
            return []

    timeouts: list[float | None] = []
    real, poller._poll = poller._poll, Recorder()
    poller.wait(timeout)
    poller._poll = real

    is_epoll = hasattr(select, "epoll") and isinstance(real, select.epoll)
    assert timeouts == [timeout if is_epoll else milliseconds]


def test_the_last_item_is_checked_before_each_wait_and_after_all_others(
    poller: Poller, pairs: Any
) -> None:
    """If it were checked before one of them, it would miss a change that this check causes."""
    checked: list[Any] = []
    items = [Item(pairs()[0], checked) for _ in range(20)]
    poller.last = items[7]
    for _ in range(3):
        for item in items:
            poller.recheck(item)
        assert poller.wait(0) == []
    assert poller.wait(0) == []

    for iteration in range(3):
        now = checked[iteration * 20 : (iteration + 1) * 20]
        assert now[-1] is items[7]
        assert set(now) == set(items)
    # Before the fourth wait, no other was rechecked.
    assert checked[60:] == [items[7]]
