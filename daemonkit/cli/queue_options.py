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
from .output import fail


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
    """The queue that is meant: the path of its file, or the address of its engine."""

    place: str

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
            return Editor(self.place, create=create)
        try:
            from ..events.shared.editor import SharedEditor  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra(error) from None
        return SharedEditor(self.place, create=create)


class QueueSource(NamedTuple):
    """Where the queue comes from: its place itself, or a configuration file."""

    queue: str | None
    config: str | None


def queue_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --queue and --config."""
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


def source_of(queue: str | None, config: str | None) -> QueueSource:
    """The values of the two options; raises UsageError if both are given."""
    if queue is not None and config is not None:
        raise click.UsageError("give --queue or --config, not both")
    return QueueSource(queue, config)


def queue_command(function: Callable[..., None]) -> Callable[..., None]:
    """Pass the queue to `function`, and report its errors in one line.

    The context's object is the QueueSource of that queue.
    """

    @wraps(function)
    @click.pass_context
    def with_queue(
        context: click.Context, /, queue: str | None, config: str | None, **arguments: Any
    ) -> None:
        own = source_of(queue, config)
        source: QueueSource = own if any(own) else context.obj
        context.obj = source
        with _errors_reported():
            found = Queue(source.queue or _configured(source.config))
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
