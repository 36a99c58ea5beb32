"""The command `daemonkit`."""

from __future__ import annotations

import platform
from importlib import import_module
from importlib.metadata import version

import click

from .._version import __version__

COMMANDS = ("events", "run", "systemd")
"""Each is a function in a module of its name."""


class _Commands(click.Group):
    """Imports a command when it is needed: a start needs only `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f".{cmd_name}", __name__), cmd_name)
        return command


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        peers = ", ".join(f"{name} {version(name)}" for name in ("Flask", "waitress"))
        click.echo(f"daemonkit {__version__} (Python {platform.python_version()}, {peers})")
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def main() -> None:
    """Run and manage daemons made with daemonkit."""
