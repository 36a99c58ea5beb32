"""What commands write: lines that are redacted and harmless to a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import NoReturn

import click

from ..config.secrets import redact
from .terminal import printable


def fail(text: str, status: int = 1) -> NoReturn:
    """Write an error to stderr, and exit."""
    note(f"daemonkit: {text}")
    raise SystemExit(status)


def note(text: str) -> None:
    """Write a line to stderr, redacted."""
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
    """Write lines to stdout, redacted, with characters that it can't encode escaped."""
    encoding = sys.stdout.encoding
    for line in lines:
        click.echo(redact(line).encode(encoding, "backslashreplace").decode(encoding))
