"""What an operator may see and change in a shared queue, even while daemons use it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from typing import Any
from urllib.parse import unquote

from ...exceptions import StartError
from ..durable.editor import Stored, failed_event, split
from ..durable.rows import StoredBatch, to_row
from ..durable.store import State
from ..entry import Batch
from .address import Address, parse
from .engine import Engine, EngineAway, Link
from .failed import AT_ONCE, FailureStore
from .layout import LAYOUT, prefix_of
from .node import new_name
from .records import batch_id, batch_in, fields_of
from .scripts import PUT

REQUEST_TIMEOUT = 30.0
ENTRIES_AT_ONCE = 100
UNLIMITED = 2**53
"""More events than there can be: an import isn't limited."""
REMEMBERED = 60_000
"""Milliseconds; see the script PUT."""
DEAD: tuple[State, ...] = ("dead",)


class _Link(Link):
    """A connection whose failures end the command; shown: the address, for people."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine, REQUEST_TIMEOUT)
        self._shown = engine.shown

    def call(self, *command: Any) -> Any:
        try:
            return super().call(*command)
        except EngineAway as error:
            if error.code == "NOSCRIPT":
                raise
            text = "its memory is full (maxmemory)" if error.code == "OOM" else error
            raise StartError(f"the event queue {self._shown} can't be used: {text}") from None


class SharedEditor:
    """A queue in an engine. Every method may raise StartError.

    address: of the engine, with `?name=` of the daemon; name: the same, given apart; both may be
    left out if there is only one queue; create: create the queue if there is none.
    """

    def __init__(self, address: str, name: str | None = None, *, create: bool = False) -> None:
        parsed = parse(address)
        given = name or parsed.name
        self.is_only_one = not given
        """Whether it was not named, but is the only one."""
        self.name = given or _only_name(parsed)
        self._engine = Engine(parsed, self.name, new_name())
        self._link = _Link(self._engine)
        try:
            _check_layout(self._link, self._engine, self.name, create=create)
        except BaseException:
            self._link.close()
            raise
        self._failures = FailureStore(self._engine, self._link)
        self._puts = 0

    def close(self) -> None:
        self._link.close()

    # Reading

    def count(self, states: Collection[State]) -> int:
        """How many events are in these states."""
        call, prefix = self._link.call, self._engine.prefix
        retrying = call("ZCARD", f"{prefix}due") + call("HLEN", f"{prefix}queued")
        counts = {
            "waiting": int(call("HGET", f"{prefix}counts", "waiting") or 0) - retrying,
            "retrying": retrying,
            "dead": call("ZCARD", f"{prefix}dead"),
        }
        return sum(counts[state] for state in states)

    def find(self, id: int) -> Stored | None:
        """The event with this id, None if there is none."""
        if (row := self._failures.find(id)) is not None:
            return failed_event(row)
        for batch, handled in self._batches(id, id):
            return next((e for e in split(batch, handled) if e.id == id), None)
        return None

    def events(self, states: Collection[State]) -> Iterator[Stored]:
        """The events in these states, oldest first, without those added meanwhile."""
        failed = sorted(id for s in states if s != "waiting" for id in self._failures.ids(s))
        if "waiting" in states:
            for batch, handled in self._batches(0, None):
                older = [id for id in failed if id < batch.id]
                yield from self._failed(older)
                # Those of this batch among its waiting events.
                among = [id for id in failed if batch.id <= id < batch.id + batch.events]
                failed = failed[len(older) + len(among) :]
                rows = [failed_event(row) for row in self._failures.rows(among)]
                found = [*split(batch, handled), *rows]
                yield from sorted(found, key=lambda event: event.id)
        yield from self._failed(failed)

    def _failed(self, ids: Sequence[int]) -> Iterator[Stored]:
        for start in range(0, len(ids), AT_ONCE):
            yield from map(failed_event, self._failures.rows(ids[start : start + AT_ONCE]))

    def _batches(self, first: int, last: int | None) -> Iterator[tuple[StoredBatch, set[int]]]:
        """The batches with events from one id to another, and which of each are handled."""
        call, prefix = self._link.call, self._engine.prefix
        begin, end = f"{first // 1000}-0", "+" if last is None else f"{last // 1000}-0"
        if last is None:
            newest = call("XREVRANGE", self._engine.stream, "+", "-", "COUNT", 1)
            end = newest[0][0] if newest else end
        while True:
            found = call("XRANGE", self._engine.stream, begin, end, "COUNT", ENTRIES_AT_ONCE)
            if not found:
                return
            marks = call("HMGET", f"{prefix}handled", *[entry for entry, _ in found])
            for (entry, flat), bits in zip(found, marks, strict=True):
                fields = fields_of(flat)
                if b"d" in fields:
                    handled = {n for n, bit in enumerate(bits or b"") if bit == ord("1")}
                    yield batch_in(entry, fields), handled
            begin = f"({batch_id(found[-1][0]) // 1000}-0"

    # Changing

    def add(self, lines: Sequence[bytes]) -> None:
        """Add up to STRIDE events, given as lines of NDJSON."""
        self._puts += 1
        row = to_row(Batch(lines, lines, "app"), 0)
        self._link.run(
            PUT,
            *(self._puts, REMEMBERED, UNLIMITED, 1, row.events),
            *(row.events, row.source, "", row.lines),
        )

    def retry(self, ids: Sequence[int]) -> set[int]:
        """Have failed events retried now, as if never attempted; returns those that exist."""
        return self._failures.retry(ids)

    def retry_all(self) -> int:
        """Have all dead letters retried; returns how many."""
        return len(self._failures.retry(self._failures.ids("dead")))

    def drop(self, ids: Sequence[int]) -> set[int]:
        """Remove events; returns those that existed."""
        return self._failures.drop(ids, only_failed=False)

    def drop_all(self, states: Collection[State]) -> int:
        """Remove all events in these states; returns how many."""
        dropped = 0
        # In this order: an event that fails meanwhile is found among the failed ones.
        if "waiting" in states:
            for batch, handled in self._batches(0, None):
                ids = [event.id for event in split(batch, handled)]
                dropped += len(self._failures.drop(ids, only_failed=False))
        for state in states:
            if state != "waiting":
                dropped += len(self._failures.drop(self._failures.ids(state)))
        return dropped


def _only_name(address: Address) -> str:
    """The name of the only queue in the engine."""
    head, tail = f"{prefix_of('@')}layout".split("@")
    names, cursor = set(), b"0"
    with closing(_Link(Engine(address, "", ""))) as link:
        while True:
            cursor, found = link.call("SCAN", cursor, "MATCH", f"{head}*{tail}", "COUNT", 1000)
            names |= {unquote(key.decode()[len(head) : -len(tail)]) for key in found}
            if cursor == b"0":
                break
    if len(names) == 1:
        return names.pop()
    if not names:
        text = f"there is no event queue in {address.shown}; its daemon creates it, or name it"
    else:
        several = ", ".join(sorted(names))
        text = f"there are several event queues in {address.shown} ({several}); name one"
    raise StartError(f"{text}: --name NAME")


def _check_layout(link: Link, engine: Engine, name: str, *, create: bool) -> None:
    layout = link.call("GET", f"{engine.prefix}layout")
    if layout is None and not create:
        raise StartError(f"there is no event queue {name} in {engine.shown}")
    if layout is None:
        link.join("", "")
    elif int(layout) > LAYOUT:
        raise StartError(
            f"the event queue {name} in {engine.shown} has layout {int(layout)}, made by a newer "
            f"daemonkit; this one knows layouts up to {LAYOUT}"
        )
