"""What the commands have in common that work with a durable queue's file."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

import click

from ..config.loading import load
from ..events.durable.database import Broken
from ..exceptions import ConfigError, DaemonkitError, StartError
from .formatting import printable

Place = tuple[str | None, str | None]


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where the queue's file is."""
    command = click.option(
        "--config", "-c", metavar="FILE", help="A daemon's configuration, for its master.queue."
    )(command)
    return click.option("--queue", "-q", metavar="FILE", help="The queue's file.")(command)


def place_of(queue: str | None, config: str | None) -> Place:
    """What the two options say."""
    if queue is not None and config is not None:
        raise click.UsageError("give --queue or --config, not both")
    return queue, config


def queue_command(function: Callable[..., None]) -> Callable[..., None]:
    """Have the queue's path passed to `function`, and what goes wrong told in one line."""

    @wraps(function)
    @click.pass_context
    def with_path(
        context: click.Context, /, queue: str | None, config: str | None, **arguments: Any
    ) -> None:
        own = place_of(queue, config)
        path, config = own if any(own) else context.obj
        with _told():
            path = path or _configured(config)
        with _told(path):
            function(path, **arguments)

    return place_options(with_path)


def _configured(config: str | None) -> str:
    if config is None:
        raise click.UsageError("where is the queue? Give --queue FILE or --config FILE")
    queue = load(config).master["queue"]
    if queue is None:
        raise ConfigError(
            "there is no master.queue: that daemon keeps its events in memory", config
        )
    return str(queue)


@contextmanager
def _told(path: str | None = None) -> Iterator[None]:
    try:
        yield
    except DaemonkitError as error:
        fail(str(error), error.exit_status)
    except Broken as error:
        fail(f"the event queue {path} can't be read: {error}", StartError.exit_status)
    except sqlite3.Error as error:
        fail(f"the event queue {path}: {error}")


def fail(text: str, status: int = 1) -> NoReturn:
    """Tell what is wrong, and exit."""
    note(f"daemonkit: {text}")
    raise SystemExit(status)


def note(text: str) -> None:
    """Write a line to stderr."""
    click.echo(printable(text), err=True)


def say(lines: Iterable[str]) -> None:
    """Write lines to stdout, whatever it can't encode escaped."""
    encoding = sys.stdout.encoding
    for line in lines:
        click.echo(line.encode(encoding, "backslashreplace").decode(encoding))
