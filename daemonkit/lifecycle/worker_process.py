"""One of several processes of a daemon: how its parent starts it, and what it knows of that."""

from __future__ import annotations

import ctypes
import fcntl
import math
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from socket import socket
from typing import NamedTuple

from ..runtime.clock import monotonic
from ..system.systemd import FIRST_DESCRIPTOR

VARIABLE = "DAEMONKIT_WORKER"
REPLACE = signal.SIGUSR2
"""Asks the parent to replace the workers."""
RELOADED = "X_RELOADED=1"
"""Tells the parent that the others are to reload, too."""
KILL_AFTER_ABORT = 3.0
"""Seconds."""
_FREE_DESCRIPTORS = 100
"""Descriptors from here on aren't those that are passed."""
_PR_SET_PDEATHSIG = 1
"""prctl(2)"""
_NOT_INHERITED = ("NOTIFY_SOCKET", "WATCHDOG_PID")


class WorkerPlace(NamedTuple):
    """What a worker is: its number from 1, how many there are, and their parent."""

    number: int
    of: int
    parent: int

    def __str__(self) -> str:
        return f"worker {self.number} of {self.of}"

    @property
    def port_offset(self) -> int:
        """What is added to a port that each worker has for itself."""
        return self.number - 1


def worker_place(environ: Mapping[str, str]) -> WorkerPlace | None:
    """What this process is, None if it isn't a worker, or not any more."""
    try:
        place = WorkerPlace(*map(int, environ.get(VARIABLE, "").split("/")))
    except (ValueError, TypeError):
        return None
    # A child of a worker has the variable, too.
    return place if place.parent == os.getppid() else None


class WorkerProcess:
    """A running worker."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.began = monotonic()
        self.is_ready = False
        self.is_stopping = False
        self.fed_at = self.began
        """When it was ready, or said last that it is healthy; see sd_watchdog_enabled(3)."""
        self.is_to_reload = False
        """Whether it missed a SIGHUP while it started."""
        self.aborted_at = math.inf
        """When it was sent SIGABRT because it wasn't."""

    def send(self, number: int) -> None:
        """Send it a signal."""
        if number in (signal.SIGTERM, signal.SIGINT):
            self.is_stopping = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def forward(self, number: int) -> None:
        """Send it a signal of which it would die while it starts: a reload comes after that."""
        if self.is_ready:
            self.send(number)
        elif number == signal.SIGHUP:
            self.is_to_reload = True

    def aborts(self, now: float, limit: float) -> bool:
        """Abort it if it hasn't been healthy for so many seconds, and kill it later; returns
        whether it was aborted now."""
        if now - self.aborted_at > KILL_AFTER_ABORT:
            self.send(signal.SIGKILL)
        if not self.is_ready or now - self.fed_at <= limit:
            return False
        self.fed_at, self.aborted_at = math.inf, now
        self.send(signal.SIGABRT)
        return True

    def status(self) -> int | None:
        """Its exit status, negative for a signal that killed it; None while it runs."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        # Somebody else has waited for it: a library that reaps all children.
        except ChildProcessError:
            return 0
        return os.waitstatus_to_exitcode(status) if pid else None


def start_worker(
    command: Sequence[str],
    sockets: Sequence[socket],
    place: WorkerPlace,
    environ: Mapping[str, str],
    notify: str,
) -> WorkerProcess:
    """Start a worker; sockets: those on which it listens, passed as systemd does; notify: the
    address of the socket that it tells its state, see sd_notify(3)."""
    # Before the fork: the child may do little that takes a lock.
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    kept = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    kept |= {VARIABLE: "/".join(map(str, place)), "NOTIFY_SOCKET": notify}
    # A signal in between would be taken by the parent's handlers in the child, and be lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return WorkerProcess(pid)
    try:
        if prctl is not None:
            # A parent that is killed must not leave workers that nobody looks after.
            prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        signal.set_wakeup_fd(-1)
        for handled in signal.valid_signals():
            if callable(signal.getsignal(handled)):
                signal.signal(handled, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        moved = [
            fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, _FREE_DESCRIPTORS) for sock in sockets
        ]
        for number, descriptor in enumerate(moved, FIRST_DESCRIPTOR):
            os.dup2(descriptor, number, inheritable=True)
        kept |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(moved))}
        os.execve(command[0], list(command), kept)
    finally:
        # Never back into the parent's code.
        os._exit(127)
