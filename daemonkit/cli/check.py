"""`daemonkit check`: everything that `daemonkit run` does, except for starting."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from ..config.secrets import redact
from ..exceptions import DaemonkitError
from ..monitoring.status import jsonable
from .inspection import Inspection, inspect
from .options import daemon_options, load_or_raise, report_error
from .output import say
from .terminal import Style, aligned, printable

WIDEST = 48
"""Columns of all but the last cells."""
WITHOUT_TERMINAL = 10_000
"""Columns: nothing is cut in a file."""


@click.command()
@daemon_options
@click.option("--json", "is_json", is_flag=True, help="Print the result as JSON.")
def check(
    app: str,
    config: str | None,
    assignments: tuple[str, ...],
    is_json: bool,
    **short: str | None,
) -> None:
    """Check a daemon without starting it.

    MODULE is imported, the daemon configured, its configuration validated, and it is tried whether
    the log file and the queue can be opened; nothing is started. Shown are the configuration with
    the origin of each value, the slaves in the order in which they start, and the routes. The exit
    status is that of `daemonkit run` for the same errors.
    """
    try:
        found = inspect(load_or_raise(app, config, assignments, short))
    except DaemonkitError as error:
        report_error(error)
        if is_json:
            _print_json({"result": False, "error": str(error), "exit_status": error.exit_status})
        raise SystemExit(error.exit_status) from None
    if is_json:
        _print_json({"result": True, "exit_status": 0, **as_mapping(found)})
    else:
        is_terminal = sys.stdout.isatty()
        columns = shutil.get_terminal_size().columns if is_terminal else WITHOUT_TERMINAL
        say(lines_of(found, columns, Style.of(sys.stdout)))


def _print_json(value: dict[str, Any]) -> None:
    say([json.dumps(jsonable(value, redact), indent=2)])


def as_mapping(found: Inspection) -> dict[str, Any]:
    """What was found out, for JSON."""
    return {
        **found._asdict(),
        "configuration": [option._asdict() for option in found.configuration],
        "slaves": [slave._asdict() for slave in found.slaves],
        "routes": [route._asdict() for route in found.routes],
    }


def lines_of(found: Inspection, columns: int, style: Style) -> Iterator[str]:
    """What was found out, as text."""
    count = len(found.warnings)
    said = f"{count} warning{'s' if count > 1 else ''}" if count else "no problems found"
    paint = style.odd if count else style.good
    yield f"{style.bold(printable(found.name))}: {paint(said)}"
    for warning in found.warnings:
        yield style.odd(f"Warning: {printable(warning)}")
    options = [(key, origin, _shown(value)) for key, value, origin in found.configuration]
    slaves = [
        (slave.name, slave.kind, slave.runs, slave.restart, _linked(slave.after, slave.bound))
        for slave in found.slaves
    ]
    routes = [
        (route.rule, " ".join(route.methods), route.right or "", route.endpoint)
        for route in found.routes
    ]
    for heading, rows in (
        (("OPTION", "ORIGIN", "VALUE"), options),
        (("SLAVE", "KIND", "RUNS", "RESTART", "STARTS AFTER"), slaves),
        (("ROUTE", "METHODS", "RIGHT", "VIEW"), routes),
    ):
        if rows:
            table = [heading, *([printable(cell) for cell in row] for row in rows)]
            first, *others = aligned(table, columns, WIDEST)
            yield from ("", style.faint(first), *others)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(jsonable(value, redact))


def _linked(after: list[str], bound: bool) -> str:
    return ", ".join(after) + (" (bound)" if bound else "")
