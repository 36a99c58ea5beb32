"""Options and errors of the commands that work with a durable queue's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import click

from ..config.loading import Given, load
from ..events.durable.database import Broken
from ..exceptions import ConfigError, DaemonkitError, StartError
from .completion import complete_files
from .output import fail


class QueueSource(NamedTuple):
    """Where the path of the queue comes from: the path itself, or a configuration file."""

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
        help="The queue's file.",
        shell_complete=complete_files,
    )
    return queue(command)


def source_of(queue: str | None, config: str | None) -> QueueSource:
    """The values of the two options; raises UsageError if both are given."""
    if queue is not None and config is not None:
        raise click.UsageError("give --queue or --config, not both")
    return QueueSource(queue, config)


def queue_command(function: Callable[..., None]) -> Callable[..., None]:
    """Pass the queue's path to `function`, and report its errors in one line.

    The context's object is the QueueSource of that path.
    """

    @wraps(function)
    @click.pass_context
    def with_path(
        context: click.Context, /, queue: str | None, config: str | None, **arguments: Any
    ) -> None:
        own = source_of(queue, config)
        source: QueueSource = own if any(own) else context.obj
        context.obj = source
        with _errors_reported():
            path = source.queue or _configured(source.config)
        with _errors_reported(path):
            function(path, **arguments)

    return queue_options(with_path)


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
def _errors_reported(path: str | None = None) -> Iterator[None]:
    try:
        yield
    except DaemonkitError as error:
        fail(str(error), error.exit_status)
    except Broken as error:
        fail(f"the event queue {path} can't be read: {error}", StartError.exit_status)
    except sqlite3.Error as error:
        fail(f"the event queue {path}: {error}")
