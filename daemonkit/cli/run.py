"""`daemonkit run`: load the daemon a user wrote, configure it, and live its life."""

from __future__ import annotations

import signal

import click

from ..app import Daemon
from .options import daemon_options, load_configured

STOPPING = (signal.SIGTERM, signal.SIGINT)


@click.command()
@daemon_options
def run(app: str, config: str | None, assignments: tuple[str, ...], **short: str | None) -> None:
    """Run a daemon until it is told to stop.

    MODULE is a module's name or a file's path; ATTR names the Daemon in it, a subclass of Daemon,
    or a factory with (). Without ATTR it is `app`, or the only Daemon there.
    """
    daemon: Daemon | None = None

    def stop_early(_number: int, _frame: object) -> None:
        # Once it has lived, the process is about to end, and by its own exit status.
        if daemon is None or not daemon.shutdown.is_set():
            raise KeyboardInterrupt

    # Importing may take long, and the daemon's own handling begins only in start().
    before = {number: signal.signal(number, stop_early) for number in STOPPING}
    try:
        daemon = load_configured(app, config, assignments, short)
        daemon.start()
    except KeyboardInterrupt:
        click.echo("daemonkit: stopped before the start", err=True)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
