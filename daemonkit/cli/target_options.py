"""The options of the commands that talk to a running daemon."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from ..exceptions import DaemonkitError
from .completion import complete_files
from .output import fail
from .probe import seconds
from .target import TOKEN_VARIABLE, URL_VARIABLE, Target

URL_HELP = (
    f"URL is http://HOST:PORT or unix:/PATH; by default ${URL_VARIABLE}, or http://localhost:5151."
)


def _seconds(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    number = seconds(text)
    if number is None:
        raise click.BadParameter(f"{text!r} is not a positive number of seconds")
    return number


def target_options(timeout: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that say which daemon is meant, as the parameters `target` and `timeout`.

    timeout: its default, in seconds. DaemonkitErrors of the command are reported in one line.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def with_target(
            *arguments: Any, config: str | None, token_file: str | None, **more: Any
        ) -> Any:
            try:
                return function(*arguments, target=Target(None, config, token_file), **more)
            except DaemonkitError as error:
                fail(str(error), error.exit_status)

        for option in (
            click.option(
                "--timeout",
                callback=_seconds,
                default=f"{timeout:g}",
                metavar="SECONDS",
                help=f"How long to wait for an answer. [default: {timeout:g}]",
            ),
            click.option(
                "--token-file",
                metavar="FILE",
                shell_complete=complete_files,
                help=f"A file with the token. [default: ${TOKEN_VARIABLE}]",
            ),
            click.option(
                "--config",
                "-c",
                metavar="FILE",
                shell_complete=complete_files,
                help="The daemon's configuration: its address and token are used.",
            ),
        ):
            with_target = option(with_target)
        return with_target

    return add
