"""`daemonkit events`: show and change the events in a durable queue, also while daemons use it."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, BinaryIO

import click

from ..events.durable.database import Broken, check_path
from ..events.durable.editor import Stored
from ..events.durable.ndjson import read_lines
from ..events.durable.salvage import salvage
from ..events.durable.store import MAX_ID, STATES, State
from ..exceptions import InvalidEvent, StartError
from .completion import complete_files
from .formatting import details, table
from .inputs import is_interactive, opened, progress, size_of
from .output import confirm, fail, note, say
from .queue_options import (
    Queue,
    QueueSource,
    queue_command,
    queue_options,
    source_of,
)
from .terminal import printable

KINDS = {"waiting": "waiting event", "retrying": "event to be retried", "dead": "dead letter"}
ID = click.IntRange(0, MAX_ID)
ID.name = "event ID"


@click.group()
@queue_options
@click.pass_context
def events(
    context: click.Context, /, queue: str | None, config: str | None, name: str | None
) -> None:
    """Show and change the events in a durable queue.

    A running daemon notices changes within half a second. --queue, --config and --name may be given
    before or after the name of a command.
    """
    context.obj = source_of(queue, config, name)


def state_option(default: str | None, text: str) -> Callable[..., Any]:
    """Add --state."""
    kinds = click.Choice([*STATES, "all"])
    return click.option("--state", type=kinds, default=default, help=text)


def _states(name: str) -> Collection[State]:
    return [state for state in STATES if name in (state, "all")]


def _many(count: int, what: str = "event") -> str:
    if count != 1:
        what = what.replace("event", "events").replace("letter", "letters")
    return f"{count} {what}"


@events.command("list")
@state_option("all", "Only events in this state.")
@click.option(
    "--limit", type=click.IntRange(1), default=50, help="At most this many. [default: 50]"
)
@queue_command
def list_(queue: Queue, state: str, limit: int) -> None:
    """List events, oldest first."""
    states = _states(state)
    with closing(queue.open()) as editor:
        found = list(islice(editor.events(states), limit))
        more = editor.count(states) - len(found) if len(found) == limit else 0
    if not found:
        say([f"There are no {_many(0, KINDS.get(state, 'event'))[2:]} in {printable(str(queue))}"])
        return
    say(table(found))
    if more > 0:
        note(f"{more} more; use --limit to show them")


@events.command()
@click.argument("id", type=ID)
@queue_command
def show(queue: Queue, id: int) -> None:
    """Show everything about an event."""
    with closing(queue.open()) as editor:
        event = editor.find(id)
    if event is None:
        fail(_missing(queue, id))
    say(details(event))


def _missing(queue: Queue, id: int) -> str:
    return f"there is no event {id} in {queue}"


@events.command()
@click.argument("ids", type=ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All dead letters.")
@queue_command
def retry(queue: Queue, ids: tuple[int, ...], is_all: bool) -> None:
    """Retry dead letters, or events scheduled for a retry, now."""
    _check_which(ids, is_all)
    with closing(queue.open()) as editor:
        if is_all:
            say([f"{_many(editor.retry_all(), 'dead letter')} to be retried"])
            return
        done = editor.retry(ids)
        missing = {
            id: _missing(queue, id)
            if editor.find(id) is None
            else f"event {id} has not failed: it waits for its first attempt"
            for id in ids
            if id not in done
        }
    say([f"{_many(len(done))} to be retried"])
    _fail_for(missing)


@events.command()
@click.argument("ids", type=ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All dead letters, or all events in --state.")
@state_option(None, "With --all: only events in this state. [default: dead]")
@click.option("--yes", "-y", "is_sure", is_flag=True, help="Don't ask for confirmation.")
@queue_command
def drop(
    queue: Queue, ids: tuple[int, ...], is_all: bool, state: str | None, is_sure: bool
) -> None:
    """Remove events; handlers finish those that they are working on."""
    _check_which(ids, is_all)
    if state is not None and not is_all:
        raise click.UsageError("--state requires --all")
    with closing(queue.open()) as editor:
        if is_all:
            states, kind = _states(state or "dead"), KINDS.get(state or "dead", "event")
            if not is_sure and is_interactive():
                count = _many(editor.count(states), kind)
                confirm(f"Drop {count} of {queue}?")
            say([f"{_many(editor.drop_all(states), kind)} dropped"])
            return
        done = editor.drop(ids)
    say([f"{_many(len(done))} dropped"])
    _fail_for({id: _missing(queue, id) for id in ids if id not in done})


def _check_which(ids: tuple[int, ...], is_all: bool) -> None:
    if bool(ids) == is_all:
        raise click.UsageError("give either event IDs or --all")


def _fail_for(missing: dict[int, str]) -> None:
    for text in missing.values():
        note(f"daemonkit: {text}")
    if missing:
        raise SystemExit(1)


@events.command()
@state_option("all", "Only events in this state.")
@click.option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.")
@queue_command
def export(queue: Queue, state: str, output: str | None) -> None:
    """Write events as NDJSON, oldest first.

    If the queue's file is damaged, write what can be read, and exit with status 3.
    """
    if output is None:
        _export(queue, state, sys.stdout.buffer)
        return
    # Opening it for writing would empty it.
    suffixes = ("", "-wal", "-shm", "-lock") if queue.is_file else ()
    if any(_is_same(output, queue.place + suffix) for suffix in suffixes):
        raise click.UsageError(f"{output} is a file of the queue itself")
    try:
        with open(output, "wb") as file:
            count = _export(queue, state, file)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")
    note(f"{_many(count)} written to {output}")


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _export(queue: Queue, state: str, file: BinaryIO) -> int:
    states = _states(state)
    try:
        editor = queue.open()
    except Broken as error:
        lost: list[None] = []
        count = _write(
            file, (e for e in salvage(queue.place, lambda: lost.append(None)) if e.state in states)
        )
        note(
            f"daemonkit: the event queue {queue} is damaged ({error}): {_many(count)} could be "
            f"read, {len(lost)} batches or failed events could not"
        )
        raise SystemExit(StartError.exit_status) from None
    with closing(editor):
        return _write(file, editor.events(states))


def _write(file: BinaryIO, events: Iterable[Stored]) -> int:
    count = 0
    for event in events:
        file.write(event.line.strip(b" \t\r") + b"\n")
        count += 1
    file.flush()
    return count


@events.command("import")
@click.argument("file", shell_complete=complete_files)
@click.option("--create", is_flag=True, help="With --config: create the queue's file if missing.")
@queue_command
@click.pass_obj
def import_(given: QueueSource, queue: Queue, file: str, create: bool) -> None:
    """Append the events of an NDJSON FILE, or - for stdin, to the queue.

    A file is checked first, and nothing is imported if a line is invalid.
    """
    # A configuration that names a missing file may be the wrong one; its daemon would get nothing.
    create = create or given.queue is not None
    if queue.is_file:
        if not create and not os.path.exists(queue.place):
            raise StartError(
                f"there is no event queue {queue}, which {given.config} names; "
                "its daemon creates it, or use --create"
            )
        check_path(queue.place, create=create)
    count = 0
    try:
        with opened(file) as source:
            size = size_of(source, file)
            if size is not None:
                with progress("Checking", size) as show:
                    for _, read in read_lines(source):
                        show(read)
                source.seek(0)
            with (
                closing(queue.open(create=create)) as editor,
                progress("Importing", size) as show,
            ):
                for lines, read in read_lines(source):
                    with _interrupt_deferred():
                        editor.add(lines)
                        count += len(lines)
                    show(read)
    except InvalidEvent as error:
        fail(f"{file}: {error}{_so_far(count)}", click.UsageError.exit_code)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}{_so_far(count)}", click.UsageError.exit_code)
    except sqlite3.Error as error:
        fail(f"the event queue {queue}: {error}{_so_far(count)}")
    except StartError as error:
        fail(f"{error}{_so_far(count)}", error.exit_status)
    except KeyboardInterrupt:
        fail(f"interrupted{_so_far(count)}")
    say([f"{_many(count)} imported"])


def _so_far(count: int) -> str:
    return f"; {_many(count)} had been imported" if count else "; nothing was imported"


@contextmanager
def _interrupt_deferred() -> Iterator[None]:
    """Defer Ctrl-C, so that the count is exact."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
