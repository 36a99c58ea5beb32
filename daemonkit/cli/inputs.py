"""Files that commands read, and how far they are with them."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import click

STDIN = "-"


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """Open a file for reading, or stdin; raises OSError."""
    if name == STDIN:
        if sys.stdin is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), "stdin")
        yield sys.stdin.buffer
        return
    with open(name, "rb") as source:
        yield source


def is_interactive() -> bool:
    """Whether someone can answer a question on stdin."""
    return sys.stdin is not None and sys.stdin.isatty()


def size_of(source: BinaryIO, name: str) -> int | None:
    """In bytes, None if the source can be read only once."""
    found = None if name == STDIN else os.fstat(source.fileno())
    return found.st_size if found is not None and stat.S_ISREG(found.st_mode) else None


@contextmanager
def progress(label: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar if stderr is a terminal; yields a function to call with the bytes done."""
    if size is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    with click.progressbar(length=size, label=label, file=sys.stderr) as bar:
        yield lambda done: bar.update(done - bar.pos)
