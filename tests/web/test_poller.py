from __future__ import annotations

import socket
from typing import Any

from daemonkit.web.poller import Poller


class Item:
    """Something to wait for, that notes when it is asked."""

    accepting = False

    def __init__(self, asked: list[Any], sock: socket.socket) -> None:
        self._asked, self._fileno = asked, sock.fileno()

    def readable(self) -> bool:
        self._asked.append(self)
        return True

    def writable(self) -> bool:
        return False


def test_what_depends_on_the_others_is_asked_after_them() -> None:
    """Asked before one of them, it would miss what that one is about to become."""
    asked: list[Any] = []
    pairs = [socket.socketpair() for _ in range(20)]
    poller = Poller()
    items = [Item(asked, left) for left, _ in pairs]
    poller.last = items[7]
    try:
        for _ in range(3):
            for item in items:
                poller.recheck(item)
            assert poller.wait(0) == []
        assert poller.wait(0) == []
    finally:
        poller.close()
        for pair in pairs:
            for sock in pair:
                sock.close()

    for turn in range(3):
        now = asked[turn * 20 : (turn + 1) * 20]
        assert now[-1] is items[7]
        assert set(now) == set(items)
    # It is asked before each wait, the others only if somebody said so.
    assert asked[60:] == [items[7]]
