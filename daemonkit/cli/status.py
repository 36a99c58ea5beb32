"""`daemonkit status`: what a running daemon is doing, on one screen."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from ..config.secrets import redact
from ..text import shorten
from .client import Client, Unreachable
from .output import fail, note, say
from .quantities import duration
from .refusal import refusal
from .status_screen import Size, is_healthy, screen
from .target import Target
from .target_options import URL_HELP, target_options
from .terminal import Style, printable, truncated
from .watch import INTERVAL, watch

TIMEOUT = 10.0
"""Seconds: the daemon's own status functions may take a while."""
LONGEST = 300
"""Characters of the health check's text."""
WITHOUT_TERMINAL = 120
"""Columns."""


@click.command(epilog=URL_HELP)
@click.argument("url", required=False)
@click.option("--watch", "-w", "is_watched", is_flag=True, help="Show it anew every 2 seconds.")
@click.option("--json", "is_json", is_flag=True, help="Print the daemon's status object as it is.")
@target_options(TIMEOUT)
def status(
    url: str | None, is_watched: bool, is_json: bool, target: Target, timeout: float
) -> None:
    """Show the status of the daemon at URL.

    Exit status: 0 if it is healthy, 1 if it has problems, if its health check fails or if it
    refuses to answer, 3 if it can't be reached.
    """
    if is_watched and is_json:
        raise click.UsageError("give --watch or --json, not both")
    if is_watched and not sys.stdout.isatty():
        raise click.UsageError("--watch needs a terminal")
    client = target._replace(url=url).client("read", timeout)
    try:
        if is_watched:
            watch(sys.stdout, _Watched(client).draw, lambda: time.sleep(INTERVAL))
        else:
            _show(client, is_json)
    finally:
        client.close()


def _show(client: Client, is_json: bool) -> None:
    found = Status(client)
    if found.refused:
        fail(found.refused)
    if is_json:
        say([json.dumps(found.message, indent=2)])
        if found.trouble:
            note(f"daemonkit: {client.address.text}: {found.trouble}")
    else:
        found.add_dead_letters(client)
        columns, lines = shutil.get_terminal_size((WITHOUT_TERMINAL, 0))
        # The prompt needs a line.
        size = Size(columns, lines - 1) if sys.stdout.isatty() else Size(WITHOUT_TERMINAL)
        style = Style.of(sys.stdout)
        say(screen(found.message, client.address.text, size, style, found.trouble))
    if found.trouble or not is_healthy(found.message):
        raise SystemExit(1)


class Status:
    """A daemon's answer; message: the status; refused: why there is none, "" if there is one;
    trouble: why the health check fails, which may know more than the status.

    Raises Unreachable.
    """

    def __init__(self, client: Client) -> None:
        answer = client.get("/status")
        value = answer.json()
        is_ours = isinstance(value, dict) and "message" in value
        # It may be null.
        self.message: Any = value["message"] if is_ours else None
        self.refused = self.trouble = ""
        if answer.status != 200 or not is_ours:
            self.refused = refusal(client, answer)
            return
        try:
            ping = client.get("/ping")
        except Unreachable as error:
            self.trouble = f"its health check doesn't answer: {error}"
        else:
            if ping.status != 200:
                said = " ".join(shorten(ping.text, LONGEST).split())
                self.trouble = f"its health check answers {ping.status} {said}"

    def add_dead_letters(self, client: Client) -> None:
        """Add the last dead letters of a durable queue, which the status itself doesn't list."""
        events = self.message.get("events") if isinstance(self.message, dict) else None
        if not isinstance(events, dict) or not events.get("dead") or events.get("dead_letters"):
            return
        answer = client.get("/status/failed?state=dead&limit=5")
        found = answer.message()
        # Without the right, or of an older daemonkit, there are none.
        if answer.status == 200 and isinstance(found, dict):
            listed = found.get("events")
            # Newest first.
            events["dead_letters"] = listed[::-1] if isinstance(listed, list) else []


class _Watched:
    """Draws the status of a daemon that may go away, be restarted or be replaced by another."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._style = Style.of(sys.stdout)
        self._last: Status | None = None
        self._answered = time.monotonic()
        self._change = ""

    def draw(self, columns: int, lines: int) -> list[str]:
        """The lines to show now: the last status, below what is wrong with it."""
        return [redact(line) for line in self._draw(columns, lines)]

    def _draw(self, columns: int, lines: int) -> list[str]:
        style, where = self._style, self._client.address.text
        try:
            found = Status(self._client)
            if not found.refused:
                found.add_dead_letters(self._client)
            problem = found.refused
        except Unreachable as error:
            problem = str(error)
        if not problem:
            if self._last is not None:
                self._change = _change(self._last.message, found.message) or self._change
            self._last, self._answered = found, time.monotonic()
        now = f"{datetime.now():%H:%M:%S}"
        head = [truncated(f"{now}  every {INTERVAL:g} s, Ctrl-C to stop", columns)]
        if self._change:
            head.append(style.odd(truncated(printable(self._change), columns)))
        if not problem:
            size = Size(columns, lines - len(head) - 1)
            return [*head, "", *screen(found.message, where, size, style, found.trouble)]
        head.append(style.bad(truncated(printable(shorten(problem)), columns)))
        if self._last is None:
            return head
        age = duration(time.monotonic() - self._answered)
        head.append(style.bad(truncated(f"What follows is {age} old.", columns)))
        size = Size(columns, lines - len(head) - 1)
        old = screen(self._last.message, where, size, Style(False), self._last.trouble)
        return [*head, "", *map(style.faint, old)]


def _change(old: Any, new: Any) -> str:
    """What has happened to the daemon between two statuses, "" if it is the same process."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return ""
    now = f"{datetime.now():%H:%M:%S}"
    if old.get("name") != new.get("name"):
        return f"{now}: {old.get('name')} was replaced by {new.get('name')}"
    if any(old.get(key) != new.get(key) for key in ("pid", "started")):
        return f"{now}: it was restarted (pid {old.get('pid')}, now {new.get('pid')})"
    return ""
