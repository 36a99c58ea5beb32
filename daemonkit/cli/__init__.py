"""The command `daemonkit`."""

from __future__ import annotations

import platform
from importlib.metadata import version

import click

from .._version import __version__
from .events import events as events_command
from .run import run as run_command
from .systemd import systemd as systemd_command


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        peers = ", ".join(f"{name} {version(name)}" for name in ("Flask", "waitress"))
        click.echo(f"daemonkit {__version__} (Python {platform.python_version()}, {peers})")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


main.add_command(events_command)
main.add_command(run_command)
main.add_command(systemd_command)
