"""`daemonkit send`: sends events to a running daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import click

from ..exceptions import DaemonkitError, InvalidEvent
from ..runtime.clock import monotonic
from .client import Client
from .completion import complete_files
from .event_source import is_event, read_batches
from .inputs import STDIN, opened, progress, size_of
from .output import fail, note, say
from .sender import JSON, Counts, DatagramSender, HttpSender, Pace, Retries, Stopped
from .target import Target
from .target_options import target_options

TIMEOUT = 30.0
"""Seconds: the daemon may wait for its disk."""
BATCH = 1000
RETRY_FOR = 60.0
PACES = 10
"""Batches per second, at least, while --rate limits the events."""
REPORTED = 10
"""Batches that were not accepted, of which each has its line."""
URL_BEGINS = ("http://", "https://", "unix:")


@click.command()
@click.argument("words", nargs=-1, metavar="[URL] EVENT|FILE|-", shell_complete=complete_files)
@click.option("--udp", "is_udp", is_flag=True, help="Send each event as a datagram.")
@click.option("--rate", type=click.FloatRange(0.001), help="At most this many events per second.")
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=BATCH,
    help=f"At most this many events in a request. [default: {BATCH}]",
)
@click.option(
    "--retry-for",
    type=click.FloatRange(0),
    default=RETRY_FOR,
    metavar="SECONDS",
    help="How long to retry while the daemon has no room or is restarting. "
    f"[default: {RETRY_FOR:g}]",
)
@click.option(
    "--at-least-once",
    is_flag=True,
    help="Send events again if the connection breaks before the answer.",
)
@target_options(TIMEOUT)
def send(
    words: tuple[str, ...],
    is_udp: bool,
    rate: float | None,
    batch: int,
    retry_for: float,
    at_least_once: bool,
    target: Target,
    timeout: float,
) -> None:
    """Send a JSON EVENT, or those of an NDJSON FILE or of stdin (-).

    With two arguments, the first one is the URL. A word that is valid JSON is an event; to send
    the events of a file with such a name, write ./NAME.

    Events are checked first; of a file, nothing is sent if a line is invalid. Exit status: 0 if all
    were accepted, 1 if some were refused, 2 if some are invalid, 3 if the daemon can't be reached
    or it isn't known whether it accepted some.
    """
    *urls, given = words or ("",)
    if not words or len(words) > 2 or given.startswith(URL_BEGINS):
        raise click.UsageError("give an EVENT, a FILE or -, and before that perhaps the URL")
    try:
        is_single = given != STDIN and is_event(given)
    except InvalidEvent as error:
        fail(f"the event is not valid JSON: {error}", 2)
    client = target._replace(url=next(iter(urls), None)).client("send", timeout)
    reports = _Reports()
    sender: HttpSender | DatagramSender
    if is_udp:
        sender = _datagram_sender(client, reports)
    else:
        retries = Retries(retry_for, at_least_once)
        sender = HttpSender(client, retries, reports, time.sleep, monotonic)
    try:
        with _counted(sender, reports):
            if is_single:
                _send_one(sender, given.encode())
            else:
                most = batch if rate is None else max(1, min(batch, int(rate / PACES)))
                _send_file(sender, given, most, Pace(rate, time.sleep, monotonic), reports)
            if isinstance(sender, DatagramSender):
                sender.finish()
    finally:
        client.close()
        if isinstance(sender, DatagramSender):
            sender.close()


def _datagram_sender(client: Client, reports: _Reports) -> DatagramSender:
    if client.address.scheme != "http":
        raise click.UsageError("--udp needs a URL of the form http://HOST:PORT")
    return DatagramSender(client.address, reports)


def _send_one(sender: HttpSender | DatagramSender, event: bytes) -> None:
    if isinstance(sender, HttpSender):
        sender.send([event], "the event", JSON)
    else:
        sender.send([event], "the event")


def _send_file(
    sender: HttpSender | DatagramSender, name: str, most: int, pace: Pace, reports: _Reports
) -> None:
    try:
        with opened(name) as source:
            size = size_of(source, name)
            if size is not None:
                _check(source, size)
            with progress("Sending", size) as show:
                reports.is_deferred = size is not None and sys.stderr.isatty()
                for lines in read_batches(source, most):
                    pace.wait(len(lines.events))
                    before = sender.counts.sent
                    try:
                        sender.send(lines.events, lines.place)
                    finally:
                        # Accepted or not, it was sent; of datagrams, perhaps a part.
                        if sender.counts.sent > before and isinstance(sender, HttpSender):
                            is_last = size is not None and lines.end >= size
                            reports.rest = "" if is_last else f"; nothing after line {lines.last:,}"
                    show(lines.end)
                reports.rest = ""
    except InvalidEvent as error:
        raise Stopped(f"{name}: {error}", 2) from None


def _check(source: BinaryIO, size: int) -> None:
    with progress("Checking", size) as show:
        for lines in read_batches(source, BATCH):
            show(lines.end)
    source.seek(0)


class _Reports:
    """Lines about batches that were not accepted: the first ones, and how many more there were.

    is_deferred: keep them until the end, since a progress bar is shown; rest: ends the summary with
    what was not sent.
    """

    def __init__(self) -> None:
        self.is_deferred = False
        self.rest = ""
        self._count = 0
        self._kept: list[str] = []

    def __call__(self, text: str) -> None:
        self._count += 1
        if self._count > REPORTED:
            return
        if self.is_deferred:
            self._kept.append(text)
        else:
            note(f"daemonkit: {text}")

    def finish(self) -> None:
        for text in self._kept:
            note(f"daemonkit: {text}")
        if self._count > REPORTED:
            note(f"daemonkit: {self._count - REPORTED} more batches were not accepted")


@contextmanager
def _counted(sender: HttpSender | DatagramSender, reports: _Reports) -> Iterator[None]:
    """Print the summary however the sending ends, and exit with its status."""
    began, problem, status = monotonic(), "", 0
    try:
        yield
    except FileNotFoundError as error:
        problem, status = f"{error.filename!r} is neither valid JSON nor a file", 2
    except OSError as error:
        problem, status = f"cannot read {error.filename or 'the events'}: {error.strerror}", 2
    except KeyboardInterrupt:
        problem, status = "interrupted", 130
    except DaemonkitError as error:
        problem, status = str(error), error.exit_status
    reports.finish()
    counts = sender.counts
    if problem:
        note(f"daemonkit: {problem}")
    if counts.sent or not problem:
        # Whether the events were accepted matters more than whether this can be written.
        with suppress(SystemExit):
            say([_summary(sender, monotonic() - began) + reports.rest])
    if isinstance(sender, HttpSender) and counts.unknown:
        status = status or 3
    if status or counts.refused:
        raise SystemExit(status or 1)


def _summary(sender: Any, seconds: float) -> str:
    counts: Counts = sender.counts
    what = f"{counts.sent:,} {'event' if counts.sent == 1 else 'events'}"
    parts = {"accepted": counts.accepted, "refused": counts.refused, "unknown": counts.unknown}
    if isinstance(sender, DatagramSender):
        parts = {"as datagrams": counts.unknown, "too large": counts.refused}
    shown = ", ".join(f"{number:,} {name}" for name, number in parts.items())
    rate = f" ({counts.sent / seconds:,.0f}/s)" if counts.sent > 1 and seconds > 0 else ""
    return f"{what} sent{rate}: {shown}"
