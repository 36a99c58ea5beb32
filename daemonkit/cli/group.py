"""All commands as a group of Click's, and how it reports wrong arguments."""

from __future__ import annotations

import gc
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from .._version import __version__
from ..lifecycle.descriptors import open_standard_descriptors
from .output import note

COMMANDS = ("check", "ctl", "events", "ping", "run", "send", "status", "systemd")
"""Each is a function in a module of its name."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as in shells."""


@contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage: there is hardly any in modules, and looking for it slows their import
    down by a tenth."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


class _Commands(click.Group):
    """Imports a command when it is needed: a start needs only `run`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        with _uncollected():
            module = import_module(f".{cmd_name}", __package__)
        command: click.Command = getattr(module, cmd_name)
        return command

    def main(self, *arguments: Any, standalone_mode: bool = True, **more: Any) -> Any:
        """Run a command; wrong arguments are reported in one line, as every other error."""
        run: Callable[..., Any] = super().main
        stdin = sys.stdin
        open_standard_descriptors()
        # Who reads it has to notice that there is none.
        sys.stdin = stdin
        if not standalone_mode:
            return run(*arguments, standalone_mode=False, **more)
        try:
            result = run(*arguments, standalone_mode=False, **more)
        except click.UsageError as error:
            text = error.format_message()
            # Newer releases of Click raise the help of a group without a command.
            if "\n" in text:
                error.show()
            else:
                hint = f"; see {error.ctx.command_path} --help" if error.ctx else ""
                note(f"daemonkit: {text.removesuffix('.')}{hint}")
            sys.exit(error.exit_code)
        except click.Abort as error:
            is_interrupt = isinstance(error.__cause__ or error.__context__, KeyboardInterrupt)
            note(f"daemonkit: {'interrupted' if is_interrupt else 'aborted'}")
            sys.exit(INTERRUPTED if is_interrupt else 1)
        sys.exit(result if isinstance(result, int) else 0)


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        # It takes as long as all of daemonkit's own modules for a command.
        from importlib.metadata import version  # noqa: PLC0415

        peers = ", ".join(f"{name} {version(name)}" for name in ("Flask", "waitress"))
        click.echo(f"daemonkit {__version__} (Python {platform.python_version()}, {peers})")
        context.exit()


@click.group(
    name="daemonkit", cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def group() -> None:
    """Run and manage daemons made with daemonkit."""
