"""A daemon's status as one screen of text.

Nothing is assumed of the answer: a daemon may override what it shows, and other programs answer,
too. Every text of it is made printable and cut to the width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from ..monitoring.status import STATUS_KEYS
from .quantities import duration, is_number, moment, number, to_second
from .terminal import Style, aligned, printable, truncated, width_of

MARK = "●"
WIDEST_NAME = 32
NARROWEST_LAST = 20
RUNNING = "running"
LATEST = 3
"""Dead letters and control actions that are shown at least, if there is room for them."""
NAMES = {"in_work": "in work", "retrying": "of these to be retried", "dead_now": "dead"}
ODD = ("Paused", "Level", "Reload", "Alert")
BAD_STATES = ("failed", "stalled", "backing off")


class Size(NamedTuple):
    """Of a terminal; lines: None where there is no limit."""

    columns: int
    lines: int | None = None


def screen(status: Any, where: str, size: Size, style: Style, trouble: str = "") -> list[str]:
    """The lines to show; where: the daemon's address; trouble: what its health check says."""
    if not isinstance(status, Mapping):
        text = json.dumps(status, indent=2)
        return [truncated(line, size.columns) for line in text.splitlines()][: size.lines]
    shown = _Screen(status, size, style)
    head = [*shown.health(trouble), *shown.facts(where)]
    return [*head, *shown.tables(None if size.lines is None else size.lines - len(head))]


def is_healthy(status: Any) -> bool:
    """Whether a status names no problems."""
    return not (isinstance(status, Mapping) and status.get("problems"))


class _Table(NamedTuple):
    """heading: of the columns; rows: their cells; bad: numbers of rows that stand out; least: rows
    that are shown before others get more; newest_last: whether the last rows are shown."""

    heading: tuple[str, ...]
    rows: list[tuple[str, ...]]
    what: str
    bad: frozenset[int] = frozenset()
    least: int = LATEST
    newest_last: bool = True


class _Screen:
    def __init__(self, status: Mapping[str, Any], size: Size, style: Style) -> None:
        self._status = status
        self._width = size.columns
        self._style = style

    # Above the tables

    def health(self, trouble: str) -> Iterator[str]:
        """The daemon's name, and its health with the reason, in one line."""
        style, problems = self._style, _texts(self._status.get("problems"))
        phase = _text(self._status.get("phase", "?"))
        waiting = _texts(self._status.get("waiting_for"))
        state = f"{phase}, waiting for {', '.join(waiting)}" if waiting else phase
        name = truncated(_text(self._status.get("name", "?")), WIDEST_NAME)
        # Until it runs, the phase itself is the trouble.
        has_started = phase in (RUNNING, "?")
        reason = "; ".join(problems) or (_text(trouble) if has_started else "")
        if reason or has_started:
            state += f", {reason or 'healthy'}"
        rest = max(NARROWEST_LAST, self._width - len(MARK) - width_of(name) - 4)
        line = truncated(state, rest)
        paint = style.bad if reason else style.good if phase == RUNNING else style.odd
        yield f"{paint(MARK)} {style.bold(name)} - {paint(line)}"

    def facts(self, where: str) -> Iterator[str]:
        """A line for each of what is known about the process and its events."""
        facts = [("Active", self._active()), ("Address", _text(where))]
        facts += [("Paused", text) for text in self._paused()]
        facts += [("Level", text) for text in self._levels()]
        facts += [("Reload", self._reload())]
        facts += [("Events", self._events()), ("Alerts", self._alerts())]
        facts += [("Alert", text) for text in self._active_alerts()]
        for name, text in facts:
            if text:
                line = f"{name + ':':>10} {truncated(text, max(NARROWEST_LAST, self._width - 11))}"
                yield self._style.odd(line) if name in ODD else line

    def _active(self) -> str:
        uptime, parts = self._status.get("uptime"), []
        if started := self._status.get("started"):
            parts.append(f"since {_text(to_second(started))}")
        if is_number(uptime):
            parts.append(f"for {duration(uptime)}")
        if "pid" in self._status:
            parts.append(f"pid {_text(self._status['pid'])}")
        return ", ".join(parts)

    def _paused(self) -> Iterator[str]:
        paused = _mapping(self._status.get("paused"))
        if "events" in paused:
            yield f"events{_by(_mapping(paused['events']))}"
        for name, how in _mapping(paused.get("slaves")).items():
            yield f"{_text(name)}{_by(_mapping(how))}"

    def _levels(self) -> Iterator[str]:
        for level in _mappings(self._status.get("levels")):
            until = level.get("until")
            end = f" until {_text(to_second(until) if until else 'the daemon stops')}"
            who = f" (by {_text(level['by'])})" if level.get("by") else ""
            yield f"{_text(level.get('level'))} for {_text(level.get('logger'))}{end}{who}"

    def _reload(self) -> str:
        failed = _mapping(self._status.get("reload_failed"))
        if not failed:
            return ""
        return f"failed at {_text(to_second(failed.get('time')))}: {_text(failed.get('error'))}"

    def _events(self) -> str:
        events = _mapping(self._status.get("events"))
        always = ("received", "handled", "failed", "waiting")
        # Of a queue in memory, `dead` also counts those that are gone.
        dead = "dead_now" if "dead_now" in events else "dead"
        parts = [
            f"{number(events[name])} {NAMES.get(name, name)}"
            for name in (*always[:3], "refused", "waiting", "retrying", "in_work", dead)
            if events.get(name) or (name in always and name in events)
        ]
        if is_number(age := events.get("oldest_age")):
            parts.append(f"oldest waits {duration(age)}")
        return ", ".join(parts)

    def _active_alerts(self) -> Iterator[str]:
        for alert in _mappings(_mapping(self._status.get("alerts")).get("active")):
            shown = [_text(alert.get(key, "?")) for key in ("service", "status", "description")]
            resolving = " (resolving)" if alert.get("resolving") is True else ""
            yield f"{shown[0]} {shown[1]}{resolving}: {shown[2]}"

    def _alerts(self) -> str:
        """By target, or those of Juggler; nothing while there were none."""
        alerts = _mapping(self._status.get("alerts")) or {"juggler": self._status.get("juggler")}
        found = []
        for target, counts in alerts.items():
            parts = [f"{number(n)} {_text(what)}" for what, n in _mapping(counts).items() if n]
            if parts:
                found.append(f"{_text(target)}: {', '.join(parts)}")
        return "; ".join(found)

    # Tables

    def tables(self, lines: int | None) -> Iterator[str]:
        """The tables, in at most so many lines."""
        tables = [
            self._nodes(),
            self._slaves(),
            self._fields(),
            self._dead_letters(),
            self._actions(),
        ]
        tables = [table for table in tables if table.rows]
        for table, room in zip(tables, _rooms(tables, lines)):  # noqa: B905
            if room != 0:
                yield ""
                yield from self._lines(table, room)

    def _lines(self, table: _Table, room: int | None) -> Iterator[str]:
        numbered = list(enumerate(table.rows))
        if room is not None and len(numbered) > room:
            # One line says what is left out: not the latest, or not what has problems.
            if table.newest_last:
                numbered.reverse()
            else:
                numbered.sort(key=lambda place: place[0] not in table.bad)
            numbered = sorted(numbered[: max(1, room - 1)])
        left = len(table.rows) - len(numbered)
        rows = [table.heading, *(row for _, row in numbered)]
        heading, *lines = aligned(rows, self._width, WIDEST_NAME)
        yield self._style.faint(heading)
        for (n, _), line in zip(numbered, lines):  # noqa: B905
            yield self._style.bad(line) if n in table.bad else line
        if left and (room is None or room > 1):
            yield self._style.faint(f"... {left} more {table.what}")

    def _nodes(self) -> _Table:
        """The daemons that share the queue."""
        rows: list[tuple[str, ...]] = [
            (
                _text(node.get("name", "?")),
                number(node.get("held")),
                number(node.get("in_work")),
                duration(node["age"]) if is_number(node.get("age")) else "-",
            )
            for node in _mappings(_mapping(self._status.get("events")).get("nodes"))
        ]
        return _Table(("NODE", "HOLDS", "IN WORK", "HEARTBEAT"), rows, "nodes", newest_last=False)

    def _slaves(self) -> _Table:
        rows: list[tuple[str, ...]] = []
        bad = set()
        for slave in _mappings(self._status.get("slaves")):
            state = _text(slave.get("state", "?"))
            if state in BAD_STATES:
                bad.add(len(rows))
            if slave.get("paused"):
                state += ", paused"
            rows.append(
                (
                    _text(slave.get("name", "?")),
                    state,
                    number(slave.get("restarts")),
                    self._ago(slave.get("last_heartbeat")),
                    _next_call(slave),
                    _error(slave.get("last_error")),
                )
            )
        heading = ("SLAVE", "STATE", "RESTARTS", "HEARTBEAT", "NEXT CALL", "LAST ERROR")
        return _Table(heading, rows, "slaves", frozenset(bad), len(rows), newest_last=False)

    def _ago(self, value: Any) -> str:
        """How long before the answer a time was, by the daemon's own clock."""
        then, now = moment(value), self._now()
        return "-" if then is None or now is None else duration((now - then).total_seconds())

    def _now(self) -> datetime | None:
        started, uptime = moment(self._status.get("started")), self._status.get("uptime")
        if started is None or not is_number(uptime):
            return None
        try:
            return started + timedelta(seconds=uptime)
        except OverflowError:
            return None

    def _fields(self) -> _Table:
        rows: list[tuple[str, ...]] = []
        bad = set()
        for name, value in self._status.items():
            if name in STATUS_KEYS:
                continue
            # What stands for one whose function failed.
            if isinstance(value, Mapping) and value.keys() == {"error"}:
                bad.add(len(rows))
            rows.append((_text(name), _text(value)))
        heading = ("STATUS FIELD", "VALUE")
        return _Table(heading, rows, "fields", frozenset(bad), newest_last=False)

    def _dead_letters(self) -> _Table:
        letters = _mappings(_mapping(self._status.get("events")).get("dead_letters"))
        rows: list[tuple[str, ...]] = [
            (
                _text(letter.get("id", "?")),
                _text(to_second(letter.get("last_failed", "?"))),
                number(letter.get("attempts")),
                _text(letter.get("error", "?")),
            )
            for letter in letters
        ]
        return _Table(("DEAD LETTER", "LAST FAILURE", "ATTEMPTS", "ERROR"), rows, "dead letters")

    def _actions(self) -> _Table:
        rows: list[tuple[str, ...]] = []
        bad = set()
        for action in _mappings(self._status.get("actions")):
            if action.get("ok") is False:
                bad.add(len(rows))
            rows.append(
                (
                    _text(to_second(action.get("time", "?"))),
                    _text(action.get("by", "?")),
                    _text(action.get("action", "?")),
                    _text(action.get("outcome", "")),
                )
            )
        heading = ("CONTROL ACTION", "BY", "ACTION", "OUTCOME")
        return _Table(heading, rows, "actions", frozenset(bad))


def _rooms(tables: Sequence[_Table], lines: int | None) -> list[int | None]:
    """How many lines of rows each table may have: at first the least that it needs, from the last
    one on, since the first one takes what is left."""
    if lines is None:
        return [None] * len(tables)
    # An empty line and the heading of each.
    left = max(0, lines - 2 * len(tables))
    rooms: list[int | None] = []
    for table in reversed(tables):
        is_first = table is tables[0]
        room = left if is_first else min(len(table.rows), table.least, left // 2)
        rooms.append(room)
        left -= min(room, len(table.rows))
    return rooms[::-1]


def _text(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value))


def _texts(value: Any) -> list[str]:
    return [_text(item) for item in value] if isinstance(value, list) else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [_mapping(item) for item in value] if isinstance(value, list) else []


def _by(how: Mapping[str, Any]) -> str:
    return f" by {_text(how.get('by', '?'))} since {_text(to_second(how.get('since', '?')))}"


def _next_call(slave: Mapping[str, Any]) -> str:
    for key in ("next_restart_in", "next_call_in"):
        if is_number(wait := slave.get(key)):
            return f"in {duration(wait)}"
    return "-"


def _error(failure: Any) -> str:
    if not isinstance(failure, Mapping):
        return "" if failure is None else _text(failure)
    place = f" ({_text(failure['place'])})" if failure.get("place") else ""
    return f"{_text(failure.get('error', '?'))}{place}"
