"""The options of the commands that load a configured daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from ..app import Daemon
from ..config.children import hand_down
from ..config.defaults import SETTINGS
from ..config.in_force import COMMAND_LINE
from ..config.loading import SECTION, Given, Override
from ..config.secrets import redact
from ..exceptions import DaemonkitError, LoadError
from .completion import complete_files, complete_levels, complete_modules
from .loader import load_daemon


def flag(setting: str) -> str:
    """The option that is short for a setting."""
    return f"--{setting.replace('_', '-')}"


def daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `load_configured` takes."""
    command = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one value: a dotted KEY and a YAML VALUE; may be repeated.",
    )(command)
    for setting in reversed(SETTINGS.values()):
        if setting.option:
            text = f"{setting.help} [default: {setting.default}]".replace("`", "")
            complete = complete_levels if setting.name == "log_level" else None
            command = click.option(flag(setting.name), help=text, shell_complete=complete)(command)
    config = click.option(
        "--config",
        "-c",
        metavar="FILE",
        help="The YAML configuration.",
        shell_complete=complete_files,
    )
    app = click.argument("app", metavar="MODULE[:ATTR]", shell_complete=complete_modules)
    return app(config(command))


def load_configured(
    app: str, config: str | None, assignments: tuple[str, ...], short: dict[str, str | None]
) -> Daemon:
    """Load the daemon that the command line names and configure it; exits on an error."""
    try:
        return load_or_raise(app, config, assignments, short)
    except DaemonkitError as error:
        report_error(error)
        raise SystemExit(error.exit_status) from None


def load_or_raise(
    app: str, config: str | None, assignments: tuple[str, ...], short: dict[str, str | None]
) -> Daemon:
    """The same, but raises DaemonkitError."""
    overrides = [Override.parse(assignment) for assignment in assignments]
    for name, text in short.items():
        if text is not None:
            # An address isn't YAML: `::` would be a mapping.
            raw = isinstance(SETTINGS[name].default, str)
            overrides.append(Override(f"{SECTION}.{name}", text, flag(name), raw))
    given = Given(config, tuple(overrides))
    hand_down(given, os.environ)
    token = COMMAND_LINE.set(given)
    try:
        daemon = load_daemon(app)
    finally:
        COMMAND_LINE.reset(token)
    daemon._configure(given)
    return daemon


def as_arguments(
    app: str, config: str | None, assignments: tuple[str, ...], short: dict[str, str | None]
) -> list[str]:
    """The same as arguments of a command."""
    settings = [f"{flag(name)}={text}" for name, text in short.items() if text is not None]
    files = [] if config is None else [f"--config={config}"]
    return [*files, *(f"--set={one}" for one in assignments), *settings, "--", app]


def report_error(error: DaemonkitError) -> None:
    """Write an error to stderr, below the traceback if the user's module raised."""
    if isinstance(error, LoadError) and error.traceback:
        click.echo(redact(error.traceback), err=True, nl=False)
    click.echo(redact(f"daemonkit: {error}"), err=True)
