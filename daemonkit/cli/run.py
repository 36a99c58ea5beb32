"""`daemonkit run`: load a user's daemon, configure it and run it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from ..lifecycle.descriptors import open_standard_descriptors
from ..lifecycle.signal_actions import StopRequest
from ..lifecycle.signals import STOP_SIGNALS, Ignoring, kernel_handler
from ..system.log import write_stderr
from .options import as_arguments, daemon_options, load_configured

IGNORED_SIGNALS = (signal.SIGHUP, signal.SIGUSR1)
BLOCKED_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
"""Signals that every daemon handles; the user's module may handle SIGUSR1 itself."""


@click.command()
@daemon_options
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Run this many processes on one port; their queue must be in Redis.",
)
def run(
    app: str,
    config: str | None,
    assignments: tuple[str, ...],
    workers: int | None,
    **short: str | None,
) -> None:
    """Run a daemon until it is asked to stop.

    MODULE is a module's name or a file's path. ATTR names a Daemon in it, a subclass of Daemon, or
    a factory with (), which may take `config`. Without ATTR, it is `app` or the only Daemon there.
    """
    # The module may read stdin.
    open_standard_descriptors()
    request = StopRequest()
    early = _EarlySignals(request)
    daemon = None
    try:
        with _outlasting(request):
            try:
                with _outlasting(request):
                    early.start()
                    daemon = load_configured(app, config, assignments, short)
            finally:
                # Signals wait here until start() unblocks them.
                signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED_SIGNALS)
                early.stop()
        # The exception may have been lost, in a destructor for instance.
        if request.first is not None or daemon is None:
            click.echo("daemonkit: stopped before the start", err=True)
            # A KeyboardInterrupt that left an eval() in the import, of namedtuple for instance,
            # makes CPython end by SIGINT, handled or not, unless another eval() succeeds.
            eval("None")
        elif workers is None:
            daemon.start()
        else:
            # Few run several, and it imports ctypes.
            from .workers import run_workers  # noqa: PLC0415

            arguments = as_arguments(app, config, assignments, short)
            command = [sys.executable, "-m", "daemonkit", "run", *arguments]
            raise SystemExit(run_workers(daemon, workers, command))
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_SIGNALS)


class _EarlySignals:
    """Handles signals until `start()` does: an import may take long."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._handlers = dict.fromkeys(STOP_SIGNALS, self._stop) | dict.fromkeys(
            IGNORED_SIGNALS, _ignore
        )
        self._before = {number: signal.getsignal(number) for number in self._handlers}
        self._addresses: dict[int, int | None] = {}

    def start(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
            self._addresses[number] = kernel_handler(number)

    def stop(self) -> None:
        """Put the handlers back that the module hasn't replaced."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) is not handler:
                continue
            if number in STOP_SIGNALS:
                is_fresh = self._request.is_fresh
                late = Ignoring(is_fresh, self._before[number])
                signal.signal(number, late if is_fresh() else self._before[number])
            # In Python's view, what faulthandler.register has replaced is still ours.
            elif kernel_handler(number) == self._addresses.get(number):
                signal.signal(number, self._before[number])

    def _stop(self, number: int, _frame: object) -> None:
        if self._request.is_first(number):
            raise KeyboardInterrupt
        if not self._request.is_fresh():
            write_stderr(f"daemonkit: {signal.Signals(number).name} again: exiting at once\n")
            os._exit(128 + number)


@contextmanager
def _outlasting(request: StopRequest) -> Iterator[None]:
    """Suppress any exception once a signal was received: the module may have turned
    KeyboardInterrupt into another one."""
    try:
        yield
    except BaseException:
        if request.first is None:
            raise


def _ignore(_number: int, _frame: object) -> None:
    """There is nothing to reload or to show yet; by default these signals end the process."""
