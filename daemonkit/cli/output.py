"""What commands write: lines that are redacted and harmless to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

import click

from ..config.secrets import redact
from .terminal import discard, encodable, printable

PIPE_CLOSED = 141
"""Exit status of a process that SIGPIPE ends, as shells show it."""
NOT_WRITTEN = 74
"""EX_IOERR of sysexits.h."""


def fail(text: str, status: int = 1) -> NoReturn:
    """Write an error to stderr, and exit."""
    note(f"daemonkit: {text}")
    raise SystemExit(status)


def note(text: str) -> None:
    """Write a line to stderr, redacted; what is done doesn't depend on it."""
    with suppress(OSError):
        click.echo(printable(redact(text)), err=True)


def confirm(question: str) -> None:
    """Ask on the terminal, and raise click.Abort unless the answer is yes."""
    try:
        is_sure = click.confirm(printable(question), err=True)
    except click.Abort:
        # The cursor is behind the question.
        click.echo(err=True)
        raise
    if not is_sure:
        raise click.Abort


def say(lines: Iterable[str]) -> None:
    """Write lines to stdout, redacted, with characters that it can't encode escaped; exits if that
    isn't possible."""
    encoding = sys.stdout.encoding
    for line in lines:
        try:
            click.echo(encodable(redact(line), encoding))
        except OSError as error:
            discard(sys.stdout)
            if isinstance(error, BrokenPipeError):
                raise SystemExit(PIPE_CLOSED) from None
            fail(f"cannot write the output: {error.strerror}", NOT_WRITTEN)
