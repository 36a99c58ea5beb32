"""`daemonkit run`: load the daemon a user wrote, configure it, and live its life."""

from __future__ import annotations

import signal

import click

from .options import daemon_options, load_configured

STOPPING = (signal.SIGTERM, signal.SIGINT)
LATER = (signal.SIGHUP, signal.SIGUSR1)
ALWAYS_TAKEN = (*STOPPING, signal.SIGHUP)
"""Signals that a daemon handles in any case; SIGUSR1 may be the user's."""


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
    early = dict.fromkeys(STOPPING, stop_early) | dict.fromkeys(LATER, _not_yet)
    before = {number: signal.signal(number, handler) for number, handler in early.items()}
    try:
        try:
            daemon = load_configured(app, config, assignments, short)
        except BaseException:
            # Whatever the module has made of the exception.
            if not asked:
                raise
        finally:
            # What comes between the two has to wait; start() lets it through.
            signal.pthread_sigmask(signal.SIG_BLOCK, ALWAYS_TAKEN)
            for number, handler in early.items():
                if signal.getsignal(number) is handler:
                    signal.signal(number, before[number])
        # The exception alone isn't enough: one in a destructor, say, is lost.
        if asked:
            click.echo("daemonkit: stopped before the start", err=True)
        else:
            daemon.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ALWAYS_TAKEN)


def _not_yet(_number: int, _frame: object) -> None:
    """There is nothing to reload or to show yet, and nothing may end because of that."""
