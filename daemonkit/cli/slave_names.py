"""What the shell completes for slaves: their names, asked from the running daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..exceptions import DaemonkitError
from .completion import beginning
from .target import Target

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TIMEOUT = 1.0
"""Seconds: someone waits at the keyboard."""


def complete_slaves(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The slaves of the daemon that the command line names so far; none if it isn't there."""
    return beginning(incomplete, slaves(_options(context)))


def complete_periodic(
    context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The same, but only those that are called periodically."""
    return beginning(incomplete, slaves(_options(context), is_periodic=True))


def complete_what(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """`events`, and the periodic slaves."""
    return [
        *beginning(incomplete, ["events"]),
        *complete_periodic(context, parameter, incomplete),
    ]


def _options(context: click.Context) -> dict[str, Any]:
    """Those of the verb, over those before it."""
    general = {} if context.parent is None else context.parent.params
    return {**general, **{name: value for name, value in context.params.items() if value}}


def slaves(options: dict[str, Any], *, is_periodic: bool = False) -> list[str]:
    """The names of a daemon's slaves, or of the periodic ones; never raises."""
    target = Target(*(options.get(name) for name in ("url", "config", "token_file")))
    try:
        client = target.client("read", TIMEOUT)
        try:
            message = client.get("/status").message()
        finally:
            client.close()
        return [
            slave["name"]
            for slave in message["slaves"]
            if slave["name"].isprintable() and (not is_periodic or "next_call_in" in slave)
        ]
    # It needn't be a daemon that answers.
    except (DaemonkitError, TypeError, KeyError, AttributeError):
        return []
