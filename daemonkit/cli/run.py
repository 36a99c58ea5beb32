"""`daemonkit run`: load the daemon a user wrote, configure it, and live its life."""

from __future__ import annotations

import signal

import click

from .options import daemon_options, load_configured

STOPPING = (signal.SIGTERM, signal.SIGINT)


@click.command()
@daemon_options
def run(app: str, config: str | None, assignments: tuple[str, ...], **short: str | None) -> None:
    """Run a daemon until it is told to stop.

    MODULE is a module's name or a file's path; ATTR names the Daemon in it, a subclass of Daemon,
    or a factory with (). Without ATTR it is `app`, or the only Daemon there.
    """
    asked: list[int] = []

    def stop_early(number: int, _frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    # Importing may take long, and the daemon's own handling begins only in start().
    before = {number: signal.signal(number, stop_early) for number in STOPPING}
    try:
        daemon = load_configured(app, config, assignments, short)
    except KeyboardInterrupt:
        if not asked:
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # The exception alone isn't enough: what runs in a destructor, say, is lost.
    if asked:
        click.echo("daemonkit: stopped before the start", err=True)
    else:
        daemon.start()
