"""Puts again what the engine had confirmed and has lost, which it did a moment ago.

With `appendfsync everysec`, the engine answers before it writes while an fsync is under way, and a
replica may lack what its primary had. The number of the last put that it knows tells what it lost.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import hiredis

from ...runtime.clock import monotonic
from .put import BY_SHA, BY_TEXT, Argument, packed, put_command
from .stream_socket import StreamSocket

RETAIN = 10.0
"""Seconds. Redis delays a write by up to two."""
MAX_SIZE = 32 * 1024 * 1024
"""Bytes of events that are kept."""
REMEMBERED = 3600.0
"""Seconds for which the engine remembers a put's number."""
UNLIMITED = 2**53
"""The bound for what was accepted before."""


class Kept(NamedTuple):
    """A put; arguments: of the script PUT; at: when it was confirmed, in monotonic seconds."""

    number: int
    arguments: list[Argument]
    events: int
    size: int
    at: float


class Repairs:
    """The last puts, and whether the engine has them; only on the loop's thread.

    keys: of the queue; over: called when the engine has all of them; failed: called with the reason
    if that is not possible on this connection.
    """

    def __init__(
        self,
        keys: Sequence[str],
        logger: logging.Logger,
        over: Callable[[], None],
        failed: Callable[[str], None],
    ) -> None:
        self._keys = keys
        self._logger = logger
        self._over = over
        self._failed = failed
        self._kept: deque[Kept] = deque()
        self._size = 0
        self._broke_at = monotonic()
        self._socket: StreamSocket | None = None
        """Where the engine is asked, and told."""
        self._lost: deque[Kept] | None = None
        """The puts that are to be put again; None until the engine has said which."""

    @property
    def is_busy(self) -> bool:
        """Whether the next answer is for this."""
        return self._socket is not None

    def keep(self, head: Sequence[Argument], units: Sequence[Sequence[Argument]]) -> None:
        """Keep what a put has stored; head: the arguments before its units."""
        number, remembered, _ = head
        assert isinstance(number, int)
        flat = [argument for unit in units for argument in unit]
        size = sum(len(argument) for argument in flat if isinstance(argument, bytes))
        arguments: list[Argument] = [number, remembered, UNLIMITED, *flat]
        now = monotonic()
        self._kept.append(Kept(number, arguments, sum(int(u[1]) for u in units), size, now))
        self._size += size
        self._forget(now)

    def _forget(self, now: float) -> None:
        while self._kept and (self._size > MAX_SIZE or self._kept[0].at < now - RETAIN):
            self._size -= self._kept.popleft().size

    def note_break(self) -> None:
        """The connection has ended; what was confirmed long before that is safe."""
        self._socket = self._lost = None
        self._broke_at = monotonic()
        self._forget(self._broke_at)

    def begin(self, sock: StreamSocket) -> None:
        """Ask the engine, on a new connection, which put is the last that it knows."""
        if monotonic() - self._broke_at > REMEMBERED / 2:
            self._kept.clear()
            self._size = 0
        self._socket = sock
        sock.send(packed("GET", self._keys[-1]))

    def received(self, answer: object) -> None:
        """The engine has answered."""
        if isinstance(answer, hiredis.ReplyError):
            if self._lost and str(answer).startswith("NOSCRIPT"):
                self._send(BY_TEXT)
            else:
                self._failed(str(answer))
        elif self._lost is None:
            self._lost = self._missing(answer)
            self._go_on()
        else:
            self._lost.popleft()
            self._go_on()

    def _missing(self, answer: object) -> deque[Kept]:
        last = int(answer.partition(b" ")[0]) if isinstance(answer, bytes) else 0
        lost = deque(kept for kept in self._kept if kept.number > last)
        if lost:
            self._logger.warning(
                "The event queue's engine has lost %d events that it had confirmed; they are put "
                "again, and some of them may be handled twice",
                sum(kept.events for kept in lost),
            )
        return lost

    def _go_on(self) -> None:
        if self._lost:
            self._send(BY_SHA)
        else:
            self._socket = self._lost = None
            self._over()

    def _send(self, how: tuple[str, str]) -> None:
        assert self._socket is not None
        assert self._lost is not None
        self._socket.send(put_command(how, self._keys, self._lost[0].arguments))
