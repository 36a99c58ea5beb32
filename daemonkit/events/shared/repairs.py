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
"""Seconds before the engine's last answer; what was confirmed earlier is safe. Redis delays a write
by up to two."""
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
        self._lost: deque[Kept] = deque()
        """Those that the engine has lost."""
        self._size = 0
        """Bytes of all of them."""
        self._socket: StreamSocket | None = None
        """Where the engine is asked, and told."""
        self._is_asked = False
        """Whether the next answer says which put is the last that the engine knows."""
        self._events = 0
        """How many events have been put again."""

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
        """The connection has ended."""
        self._socket = None
        self._kept += self._lost
        self._lost.clear()

    def begin(self, sock: StreamSocket) -> None:
        """Ask the engine which put is the last that it knows."""
        if self._kept and monotonic() - self._kept[-1].at > REMEMBERED / 2:
            # It may have forgotten the number itself.
            self._kept.clear()
            self._size = 0
        self._socket, self._is_asked = sock, True
        sock.send(packed("GET", self._keys[-1]))

    def received(self, answer: object) -> None:
        """The engine has answered."""
        if isinstance(answer, hiredis.ReplyError):
            if self._lost and str(answer).startswith("NOSCRIPT"):
                self._send(BY_TEXT)
            else:
                self._failed(str(answer))
            return
        if self._is_asked:
            self._is_asked = False
            last = int(answer.partition(b" ")[0]) if isinstance(answer, bytes) else 0
            while self._kept and self._kept[-1].number > last:
                self._lost.appendleft(self._kept.pop())
        else:
            again = self._lost.popleft()
            self._kept.append(again._replace(at=monotonic()))
            self._events += again.events
        if self._lost:
            self._send(BY_SHA)
        else:
            self._end()

    def _end(self) -> None:
        if self._events:
            self._logger.warning(
                "The event queue's engine had lost %d events that it had confirmed; they were put "
                "again, and some of them may be handled twice",
                self._events,
            )
        self._events, self._socket = 0, None
        self._forget(monotonic())
        self._over()

    def _send(self, how: tuple[str, str]) -> None:
        assert self._socket is not None
        self._socket.send(put_command(how, self._keys, self._lost[0].arguments))
