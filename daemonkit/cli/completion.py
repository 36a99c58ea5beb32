"""What the shell completes besides names of commands and options."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ..config.checks import DEFAULT_LEVEL, LEVELS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def beginning(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    """Those of the names that begin with what was typed."""
    return [_item(name) for name in names if name.startswith(incomplete)]


def _item(value: str, type: str = "plain") -> CompletionItem:
    # Imported while the shell completes, and not for each start.
    from click.shell_completion import CompletionItem  # noqa: PLC0415

    return CompletionItem(value, type=type)


def complete_levels(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Log levels; there is no list of loggers."""
    return beginning(incomplete.upper(), LEVELS)


def complete_set_levels(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same, and what resets a level."""
    return beginning(incomplete.upper(), (*LEVELS, DEFAULT_LEVEL))


def complete_files(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of files, by the shell itself."""
    return [_item(incomplete, "file")]


def complete_modules(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Modules and packages of the current folder; a path is completed by the shell itself."""
    if os.sep in incomplete:
        return [_item(incomplete, "file")]
    return beginning(incomplete, modules(os.curdir))


def modules(folder: str) -> list[str]:
    """The names of the modules and packages in a folder."""
    found = []
    for entry in os.scandir(folder):
        name, dot, kind = entry.name.partition(".")
        is_module = kind == "py" and name != "__init__"
        is_package = not dot and os.path.isfile(os.path.join(entry.path, "__init__.py"))
        if (is_module or is_package) and name.isidentifier():
            found.append(name)
    return sorted(found)
