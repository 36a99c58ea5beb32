"""`daemonkit events`: see and change what a durable queue keeps, beside its daemon or without."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any, BinaryIO

import click

from ..events.durable.database import Broken, check_place
from ..events.durable.editor import STATES, TOP, Editor, State, Stored
from ..events.durable.ndjson import read_lines
from ..events.durable.salvage import rescued
from ..exceptions import InvalidEvent, StartError
from .formatting import details, printable, table
from .queue_options import fail, note, place_of, place_options, queue_command, say

KINDS = {"waiting": "waiting event", "retrying": "event to be tried again", "dead": "dead letter"}
ID = click.IntRange(0, TOP)


@click.group()
@place_options
@click.pass_context
def events(context: click.Context, /, queue: str | None, config: str | None) -> None:
    """Look at the events that a durable queue keeps, and change them.

    The daemon may run meanwhile: it takes note within half a second. Every command takes --queue or
    --config, before its name or behind it.
    """
    context.obj = place_of(queue, config)


def state_option(default: str | None, text: str) -> Callable[..., Any]:
    """Which events are meant."""
    kinds = click.Choice([*STATES, "all"])
    return click.option("--state", type=kinds, default=default, help=text)


def _states(name: str) -> Collection[State]:
    return [state for state in STATES if name in (state, "all")]


def _many(count: int, what: str = "event") -> str:
    if count != 1:
        what = what.replace("event", "events").replace("letter", "letters")
    return f"{count} {what}"


@events.command("list")
@state_option("all", "Only such events.")
@click.option("--limit", type=click.IntRange(1), default=50, help="So many at most. [default: 50]")
@queue_command
def list_(path: str, state: str, limit: int) -> None:
    """List events, the oldest first."""
    states = _states(state)
    with closing(Editor(path)) as editor:
        found = list(islice(editor.events(states), limit))
        more = editor.count(states) - len(found) if len(found) == limit else 0
    if not found:
        say([f"There are no {_many(0, KINDS.get(state, 'event'))[2:]} in {printable(path)}"])
        return
    say(table(found))
    if more > 0:
        note(f"{more} more; --limit shows them")


@events.command()
@click.argument("id", type=ID)
@queue_command
def show(path: str, id: int) -> None:
    """Show all that is known of an event."""
    with closing(Editor(path)) as editor:
        event = editor.find(id)
    if event is None:
        fail(_missing(path, id))
    say(details(event))


def _missing(path: str, id: int) -> str:
    return f"there is no event {id} in {path}"


@events.command()
@click.argument("ids", type=ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All dead letters.")
@queue_command
def retry(path: str, ids: tuple[int, ...], is_all: bool) -> None:
    """Have dead letters tried again now, or others that wait for that."""
    _check_which(ids, is_all)
    with closing(Editor(path)) as editor:
        if is_all:
            say([f"{_many(editor.retry_all(), 'dead letter')} to be tried again"])
            return
        done = editor.retry(ids)
        missing = {
            id: _missing(path, id)
            if editor.find(id) is None
            else f"the event {id} has not failed, it waits for its first attempt"
            for id in ids
            if id not in done
        }
    say([f"{_many(len(done))} to be tried again"])
    _fail_for(missing)


@events.command()
@click.argument("ids", type=ID, nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All dead letters, or those of --state.")
@state_option(None, "What --all means. [default: dead]")
@click.option("--yes", "-y", "is_sure", is_flag=True, help="Don't ask.")
@queue_command
def drop(path: str, ids: tuple[int, ...], is_all: bool, state: str | None, is_sure: bool) -> None:
    """Remove events; what a handler is at work on it finishes."""
    _check_which(ids, is_all)
    if state is not None and not is_all:
        raise click.UsageError("--state belongs to --all")
    with closing(Editor(path)) as editor:
        if is_all:
            states, kind = _states(state or "dead"), KINDS.get(state or "dead", "event")
            if not is_sure and _is_terminal():
                count = _many(editor.count(states), kind)
                click.confirm(f"Drop {count} of {printable(path)}?", abort=True, err=True)
            say([f"{_many(editor.drop_all(states), kind)} dropped"])
            return
        done = editor.drop(ids)
    say([f"{_many(len(done))} dropped"])
    _fail_for({id: _missing(path, id) for id in ids if id not in done})


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _check_which(ids: tuple[int, ...], is_all: bool) -> None:
    if bool(ids) == is_all:
        raise click.UsageError("give either IDs of events or --all")


def _fail_for(missing: dict[int, str]) -> None:
    for text in missing.values():
        note(f"daemonkit: {text}")
    if missing:
        raise SystemExit(1)


@events.command()
@state_option("all", "Only such events.")
@click.option("--output", "-o", metavar="FILE", help="Write to a file instead of stdout.")
@queue_command
def export(path: str, state: str, output: str | None) -> None:
    """Write events as NDJSON, one a line, the oldest first.

    Of a file that is torn, what can be read is written; the exit status is 3 then.
    """
    if output is None:
        _export(path, state, sys.stdout.buffer)
        return
    # It would be gone with its first event unread.
    if any(_is_same(output, path + suffix) for suffix in ("", "-wal", "-shm", "-lock")):
        raise click.UsageError(f"{output} belongs to the queue itself")
    try:
        with open(output, "wb") as file:
            count = _export(path, state, file)
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror}")
    note(f"{_many(count)} written to {output}")


def _is_same(one: str, other: str) -> bool:
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def _export(path: str, state: str, file: BinaryIO) -> int:
    states = _states(state)
    try:
        editor = Editor(path)
    except Broken as error:
        lost: list[None] = []
        count = _write(
            file, (e for e in rescued(path, lambda: lost.append(None)) if e.state in states)
        )
        note(
            f"daemonkit: the event queue {path} is torn ({error}): {_many(count)} could be read, "
            f"and {len(lost)} batches or failed events could not"
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
@click.argument("file")
@queue_command
def import_(path: str, file: str) -> None:
    """Add the events of a FILE of NDJSON, - for stdin, behind those that are there.

    A file is checked first, and nothing of it is imported if a line is wrong.
    """
    check_place(path, create=True)
    count = 0
    try:
        with _opened(file) as source:
            size = _size(source, file)
            if size is not None:
                with _progress("Checking", size) as tell:
                    for _, read in read_lines(source):
                        tell(read)
                source.seek(0)
            with closing(Editor(path, create=True)) as editor, _progress("Importing", size) as tell:
                for lines, read in read_lines(source):
                    with _undisturbed():
                        editor.add(lines)
                        count += len(lines)
                    tell(read)
    except InvalidEvent as error:
        fail(f"{file}: {error}{_so_far(count)}", click.UsageError.exit_code)
    except OSError as error:
        fail(f"cannot read {file}: {error.strerror}{_so_far(count)}", click.UsageError.exit_code)
    except sqlite3.Error as error:
        fail(f"the event queue {path}: {error}{_so_far(count)}")
    except KeyboardInterrupt:
        fail(f"stopped{_so_far(count)}")
    say([f"{_many(count)} imported"])


def _so_far(count: int) -> str:
    return f"; {_many(count)} had been imported" if count else "; nothing was imported"


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdin.buffer
        return
    with open(file, "rb") as source:
        yield source


def _size(source: BinaryIO, file: str) -> int | None:
    """Its bytes, None for what can be read only once."""
    found = None if file == "-" else os.fstat(source.fileno())
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None


@contextmanager
def _progress(label: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr if that is a terminal, told how many bytes are done."""
    if size is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=size, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Have Ctrl-C wait, so that what was done is what was counted."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
