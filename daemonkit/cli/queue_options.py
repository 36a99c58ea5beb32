"""Options and errors of the commands that work with a durable queue's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple, Protocol

import click

from ..config.checks import is_address
from ..config.loading import Given, load
from ..events.durable.database import Broken
from ..events.durable.editor import Editor, Stored
from ..events.durable.store import State
from ..exceptions import ConfigError, DaemonkitError, StartError, missing_extra
from .completion import complete_files
from .output import fail, note


class Editable(Protocol):
    """The queue, opened; see `durable.editor.Editor`."""

    def close(self) -> None: ...

    def count(self, states: Collection[State]) -> int: ...

    def find(self, id: int) -> Stored | None: ...

    def events(self, states: Collection[State]) -> Iterator[Stored]: ...

    def add(self, lines: Sequence[bytes]) -> None: ...

    def retry(self, ids: Sequence[int]) -> set[int]: ...

    def retry_all(self) -> int: ...

    def drop(self, ids: Sequence[int]) -> set[int]: ...

    def drop_all(self, states: Collection[State]) -> int: ...


class Queue(NamedTuple):
    """The queue that is meant: the path of its file, or the address of its engine; name: of the
    daemon whose queue it is, if the engine has several."""

    place: str
    name: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is in a file."""
        return not is_address(self.place)

    def __str__(self) -> str:
        # Never with user and password, nor with what else may be secret.
        if self.is_file:
            return self.place
        scheme, mark, rest = self.place.partition("://")
        return scheme + mark + rest.rpartition("@")[2].partition("?")[0]

    def open(self, *, create: bool = False) -> Editable:
        """Open it; raises StartError or Broken. create: create it if it is missing."""
        if self.is_file:
            if self.name is not None:
                raise click.UsageError(f"--name is for queues in Redis, and {self} is a file")
            return Editor(self.place, create=create)
        try:
            from ..events.shared.editor import SharedEditor  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra(error) from None
        editor = SharedEditor(self.place, self.name, create=create)
        if editor.is_only_one:
            # Whose events are changed must not be a guess.
            note(f"daemonkit: the queue of {editor.name}")
        return editor


class QueueSource(NamedTuple):
    """Where the queue comes from: its place itself, or a configuration file; name: see `Queue`."""

    queue: str | None
    config: str | None
    name: str | None = None


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --queue, --config and --name."""
    command = click.option(
        "--name", metavar="NAME", help="The daemon whose queue it is, if Redis has several."
    )(command)
    command = click.option(
        "--config",
        "-c",
        metavar="FILE",
        help="A daemon's configuration, for its master.queue.",
        shell_complete=complete_files,
    )(command)
    queue = click.option(
        "--queue",
        "-q",
        metavar="FILE",
        help="The queue's file, or its redis:// address.",
        shell_complete=complete_files,
    )
    return queue(command)


def source_of(queue: str | None, config: str | None, name: str | None = None) -> QueueSource:
    """The values of the options; raises UsageError if both of the first two are given."""
    if queue is not None and config is not None:
        raise click.UsageError("give --queue or --config, not both")
    return QueueSource(queue, config, name)


def queue_command(function: Callable[..., None]) -> Callable[..., None]:
    """Pass the queue to `function`, and report its errors in one line.

    The context's object is the QueueSource of that queue.
    """

    @wraps(function)
    @click.pass_context
    def with_queue(
        context: click.Context,
        /,
        queue: str | None,
        config: str | None,
        name: str | None,
        **arguments: Any,
    ) -> None:
        given: QueueSource = context.obj
        own = source_of(queue, config, name or given.name)
        source = own if queue or config else given._replace(name=own.name)
        context.obj = source
        with _errors_reported():
            found = Queue(source.queue or _configured(source.config), source.name)
        with _errors_reported(found):
            function(found, **arguments)

    return queue_options(with_queue)


def _configured(config: str | None) -> str:
    if config is None:
        raise click.UsageError("no queue given: use --queue FILE or --config FILE")
    queue = load(Given(config)).master["queue"]
    if queue is None:
        raise ConfigError(
            "master.queue is not set: the daemon keeps its events in memory; "
            "see `daemonkit status` and `daemonkit ctl`",
            config,
        )
    return str(queue)


@contextmanager
def _errors_reported(queue: Queue | None = None) -> Iterator[None]:
    try:
        yield
    except DaemonkitError as error:
        fail(str(error), error.exit_status)
    except Broken as error:
        fail(f"the event queue {queue} can't be read: {error}", StartError.exit_status)
    except sqlite3.Error as error:
        fail(f"the event queue {queue}: {error}")
