"""`daemonkit ping`: asks a running daemon for its health."""

from __future__ import annotations

import click

from .probe import TIMEOUT, Ping
from .target import Target
from .target_options import target_options


@click.command()
@click.argument("url", required=False)
@target_options(TIMEOUT)
def ping(url: str | None, target: Target, timeout: float) -> None:
    """Print the health check of the daemon at URL.

    Exit status: 0 if it answered 200, 1 if it answered anything else, 3 if it can't be reached.
    """
    raise SystemExit(Ping(target._replace(url=url), timeout).run())
