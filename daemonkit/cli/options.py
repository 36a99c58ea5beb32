"""What every command takes that needs a daemon with its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..app import Daemon
from ..config.defaults import SETTINGS
from ..config.in_force import COMMAND_LINE, CommandLine
from ..config.loading import SECTION, Override
from ..exceptions import DaemonkitError, LoadError
from .loader import load_daemon


def flag(setting: str) -> str:
    """A setting's short form on the command line."""
    return f"--{setting.replace('_', '-')}"


def daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that `load_configured` takes."""
    command = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override one value, with a dotted KEY and VALUE as YAML; may be repeated.",
    )(command)
    for setting in reversed(SETTINGS.values()):
        if setting.option:
            text = f"{setting.help} [default: {setting.default}]".replace("`", "")
            command = click.option(flag(setting.name), help=text)(command)
    command = click.option("--config", "-c", metavar="FILE", help="The YAML configuration.")(
        command
    )
    return click.argument("app", metavar="MODULE[:ATTR]")(command)


def load_configured(
    app: str, config: str | None, assignments: tuple[str, ...], short: dict[str, str | None]
) -> Daemon:
    """The daemon that the command line names, configured; tells what is wrong and exits."""
    try:
        overrides = [Override.parse(assignment) for assignment in assignments]
        for name, text in short.items():
            if text is not None:
                # An address is not YAML: `::` would be a mapping.
                raw = isinstance(SETTINGS[name].default, str)
                overrides.append(Override(f"{SECTION}.{name}", text, flag(name), raw))
        token = COMMAND_LINE.set(CommandLine(config, tuple(overrides)))
        try:
            daemon = load_daemon(app)
        finally:
            COMMAND_LINE.reset(token)
        daemon.configure(config, overrides)
    except DaemonkitError as error:
        if isinstance(error, LoadError) and error.traceback:
            click.echo(error.traceback, err=True, nl=False)
        click.echo(f"daemonkit: {error}", err=True)
        raise SystemExit(error.exit_status) from None
    return daemon
