"""`daemonkit run`: load the daemon a user wrote, configure it, and live its life."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..config import COMMAND_LINE, SECTION, CommandLine, Override
from ..defaults import SETTINGS
from ..exceptions import DaemonkitError, LoadError
from .loader import load_daemon


def _short_forms(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each setting that the table gives one."""
    for setting in reversed(SETTINGS.values()):
        if setting.option:
            name = setting.name.replace("_", "-")
            text = f"{setting.help} [default: {setting.default}]".replace("`", "")
            command = click.option(f"--{name}", help=text)(command)
    return command


@click.command()
@click.argument("app", metavar="MODULE[:ATTR]")
@click.option("--config", "-c", metavar="FILE", help="The YAML configuration.")
@_short_forms
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one value, with a dotted KEY and VALUE as YAML; may be repeated.",
)
def run(app: str, config: str | None, assignments: tuple[str, ...], **short: str | None) -> None:
    """Run a daemon until it is told to stop.

    MODULE is a module's name or a file's path; ATTR names the Daemon in it, a subclass of Daemon,
    or a factory with (). Without ATTR it is `app`, or the only Daemon there.
    """
    try:
        overrides = [Override.parse(assignment) for assignment in assignments]
        for name, text in short.items():
            if text is not None:
                # An address is not YAML: `::` would be a mapping.
                raw = isinstance(SETTINGS[name].default, str)
                option = f"--{name.replace('_', '-')}"
                overrides.append(Override(f"{SECTION}.{name}", text, option, raw))
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
    daemon.start()
