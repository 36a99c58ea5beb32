"""`daemonkit run`: load a user's daemon, configure it and run it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import click

from .options import daemon_options, load_configured

# In this order: once SIGTERM has its handler, SIGINT has, too.
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
BLOCKED_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
"""Signals that every daemon handles; the user's module may handle SIGUSR1 itself."""


@click.command()
@daemon_options
def run(app: str, config: str | None, assignments: tuple[str, ...], **short: str | None) -> None:
    """Run a daemon until it is asked to stop.

    MODULE is a module's name or a file's path. ATTR names a Daemon in it, a subclass of Daemon, or
    a factory with (), which may take `config`. Without ATTR, it is `app` or the only Daemon there.
    """
    received: list[int] = []

    def stop_early(number: int, _frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    # An import may take long, and the daemon handles signals only from start() on.
    early = dict.fromkeys(STOP_SIGNALS, stop_early) | dict.fromkeys(IGNORED_SIGNALS, _ignore)
    before = {number: signal.getsignal(number) for number in early}
    daemon = None
    try:
        with _outlasting(received):
            try:
                with _outlasting(received):
                    for number, handler in early.items():
                        signal.signal(number, handler)
                    daemon = load_configured(app, config, assignments, short)
            finally:
                # Signals wait here until start() unblocks them.
                signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
                for number, handler in early.items():
                    if signal.getsignal(number) is handler:
                        signal.signal(number, before[number])
        # The exception may have been lost, in a destructor for instance.
        if received or daemon is None:
            click.echo("daemonkit: stopped before the start", err=True)
        else:
            daemon.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)


@contextmanager
def _outlasting(received: list[int]) -> Iterator[None]:
    """Suppress any exception once a signal was received: the module may have turned
    KeyboardInterrupt into another one."""
    try:
        yield
    except BaseException:
        if not received:
            raise


def _ignore(_number: int, _frame: object) -> None:
    """There is nothing to reload or to show yet; by default these signals end the process."""
