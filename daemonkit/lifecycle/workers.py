"""Several processes of one daemon, on one port: starts, restarts and replaces them."""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress

from ..config.defaults import Settings
from ..exceptions import StartError
from ..runtime.clock import monotonic
from ..system.sockets import Sockets, bind
from ..system.systemd import NotifySocket, reload_time, watchdog_seconds
from .binding import check_admin_ports
from .signal_actions import StopRequest
from .signals import STOP_SIGNALS
from .worker_process import RELOADED, REPLACE, WorkerPlace, WorkerProcess, start_worker
from .worker_slot import STABLE, WorkerSlot, how_ended

CLOSE_FROM = 1.0
"""Seconds of such a wait from which its sockets are closed, so that no client waits for it."""
READY_TIMEOUT = 120.0
"""Seconds until a replacement must be ready."""
KILL_AFTER = 3.0
"""Seconds past `shutdown_timeout` until a worker is killed that hasn't stopped."""
START_FAILURES = (2, 3)
"""Exit statuses of a start that would fail again; see the exceptions."""
FORWARDED = (signal.SIGHUP, signal.SIGUSR1)
_CREDENTIALS = struct.Struct("3i")


class Workers:
    """The parent of the workers; `run` returns once all of them have ended.

    count: how many there are; command: that of a worker.
    """

    def __init__(
        self,
        count: int,
        command: Sequence[str],
        settings: Settings,
        logger: logging.Logger,
        environ: Mapping[str, str],
    ) -> None:
        self._count = count
        self._command = command
        self._settings = settings
        self._logger = logger
        self._environ = environ
        self._slots = [WorkerSlot(number) for number in range(1, count + 1)]
        self._to_replace: list[WorkerSlot] = []
        self._replaces_until = math.inf
        self._stop_request = StopRequest()
        self._is_stopping = False
        self._kill_at = math.inf
        self._has_started = False
        self._statuses: list[int] = []
        self._failure = 0
        self._port = settings.port
        self._systemd = NotifySocket(environ)
        watchdog = watchdog_seconds(environ)
        self._watchdog = math.inf if watchdog is None else watchdog
        self._feed_at = math.inf if watchdog is None else 0.0
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Run the workers until they are asked to stop; returns the exit status. Raises StartError
        when the port can't be bound."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        numbers = (*STOP_SIGNALS, *FORWARDED, REPLACE, signal.SIGCHLD)
        before = {number: signal.signal(number, lambda *_: None) for number in numbers}
        old_wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        try:
            self._open(read)
            self._logger.info(
                "Listening on %s, with %d workers", self._bound().address, self._count
            )
            while not self._is_over():
                self._wait(read, self._run_due(monotonic()))
            self._systemd.send("STATUS=Stopped")
            return self._failure or max(self._statuses, default=0)
        finally:
            for process in self._processes():
                process.send(signal.SIGKILL)
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._close(read, write)

    def _open(self, read: int) -> None:
        self._notify.setblocking(False)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # In the abstract namespace (unix(7)), where nothing is left behind.
        self._notify.bind(f"\0daemonkit-workers-{os.getpid()}")
        self._selector.register(self._notify, selectors.EVENT_READ)
        self._selector.register(read, selectors.EVENT_READ)
        # With SO_REUSEPORT, a port would be shared with another daemon unnoticed.
        probe = self._bind(shared=False)
        self._port = probe.port
        check_admin_ports(self._settings, self._count)
        probe.close()
        for slot in self._slots:
            slot.sockets = self._bind(shared=True)

    def _bind(self, *, shared: bool) -> Sockets:
        with_udp = "udp" in self._settings.intake
        return bind(
            *(self._settings.host, self._port, self._logger.warning),
            with_udp=with_udp,
            shared=shared,
        )

    def _bound(self) -> Sockets:
        found = next(slot.sockets for slot in self._slots if slot.sockets is not None)
        assert found is not None
        return found

    def _close(self, *descriptors: int) -> None:
        self._selector.close()
        self._notify.close()
        self._systemd.close()
        for slot in self._slots:
            slot.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _processes(self) -> list[WorkerProcess]:
        return [process for slot in self._slots for process in slot.processes()]

    def _is_over(self) -> bool:
        return self._is_stopping and not self._processes()

    # Waiting

    def _wait(self, read: int, until: float) -> None:
        timeout = None if until == math.inf else max(0.0, until - monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fd == read:
                with suppress(BlockingIOError):
                    # Ctrl-C reaches the workers, too: first it must be known that all stop.
                    for number in sorted(os.read(read, 512), key=signal.SIGCHLD.__eq__):
                        self._handle(number)
            else:
                self._hear()

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif number in FORWARDED:
            self._forward(number)
            if number == signal.SIGHUP and self._has_started and not self._is_stopping:
                # As Type=notify-reload expects.
                self._systemd.send(f"RELOADING=1\n{reload_time()}")
                self._systemd.send("READY=1")
        elif number == REPLACE:
            self._begin_replacing()
        elif number in STOP_SIGNALS:
            if self._stop_request.is_first(number):
                self._stop(f"received {signal.Signals(number).name}")
            elif not self._stop_request.is_fresh():
                self._send(number)

    def _hear(self) -> None:
        """What workers tell of their state."""
        with suppress(BlockingIOError):
            while True:
                space = socket.CMSG_SPACE(_CREDENTIALS.size)
                data, ancillary, _, _ = self._notify.recvmsg(4096, space)
                pid = _CREDENTIALS.unpack(ancillary[0][2])[0] if ancillary else 0
                for slot in self._slots:
                    for process in slot.processes():
                        if process.pid == pid:
                            self._told(slot, process, data.splitlines())

    def _told(self, slot: WorkerSlot, process: WorkerProcess, lines: Sequence[bytes]) -> None:
        if b"WATCHDOG=1" in lines or b"READY=1" in lines:
            process.fed_at = monotonic()
        if RELOADED.encode() in lines:
            self._forward(signal.SIGHUP, but=process)
        if b"READY=1" in lines:
            self._became_ready(slot, process)

    def _became_ready(self, slot: WorkerSlot, process: WorkerProcess) -> None:
        if process.is_ready:
            # After a reload, too.
            return
        process.is_ready = True
        if process.is_to_reload:
            process.send(signal.SIGHUP)
        if process is slot.successor and slot.worker is not None:
            slot.worker.send(signal.SIGTERM)
        if not self._has_started and all(s.worker and s.worker.is_ready for s in self._slots):
            self._has_started = True
            self._systemd.send("READY=1")
            self._logger.info("Started, all %d workers", self._count)

    # What is due

    def _run_due(self, now: float) -> float:
        """Do what is due; returns when something is due again, in monotonic seconds."""
        dues = [self._feed_at]
        if now >= self._feed_at:
            self._feed_at = now + self._watchdog / 2
            self._systemd.send("WATCHDOG=1")
            self._abort_hanging(now)
        if self._is_stopping:
            if now >= self._kill_at:
                self._kill_at = math.inf
                self._logger.critical("Killing the workers that have not stopped in time")
                self._send(signal.SIGKILL)
            return min(*dues, self._kill_at)
        for slot in self._slots:
            if slot.worker is None:
                if now >= slot.start_at:
                    slot.worker = self._start(slot)
                if slot.worker is None:
                    dues.append(slot.start_at)
        return min(*dues, self._replace_next(now))

    def _abort_hanging(self, now: float) -> None:
        """Do for workers what systemd's watchdog does for a service."""
        for slot in self._slots:
            for process in slot.processes():
                if process.aborts(now, self._watchdog):
                    self._logger.error(
                        "Worker %d, pid %d, has not been healthy for %g s: it is aborted",
                        *(slot.number, process.pid, self._watchdog),
                    )

    def _start(self, slot: WorkerSlot) -> WorkerProcess | None:
        try:
            if slot.sockets is None:
                slot.sockets = self._bind(shared=True)
            place = WorkerPlace(slot.number, self._count, os.getpid())
            sockets = [sock for sock in (slot.sockets.tcp, slot.sockets.udp) if sock is not None]
            notify = f"@daemonkit-workers-{os.getpid()}"
            return start_worker(self._command, sockets, place, self._environ, notify)
        except (OSError, StartError) as error:
            self._logger.error("Worker %d can't be started: %s", slot.number, error)
            self._delay(slot)
            return None

    def _delay(self, slot: WorkerSlot) -> None:
        if slot.delay() >= CLOSE_FROM:
            slot.close()

    # The end of workers

    def _reap(self) -> None:
        for slot in self._slots:
            for process in slot.processes():
                status = process.status()
                if status is not None:
                    self._ended(slot, process, status)

    def _ended(self, slot: WorkerSlot, process: WorkerProcess, status: int) -> None:
        who = "Worker"
        if process is slot.successor:
            who = "The new worker"
            slot.successor = None
            if not self._is_stopping:
                self._replacing_failed(slot, f"the new one has {how_ended(status)}")
        else:
            slot.worker, slot.successor = slot.successor, None
            if slot.worker is not None and self._to_replace:
                self._to_replace.pop(0)
                self._replaces_until = math.inf
        is_stopping = process.is_stopping or self._is_stopping
        if is_stopping and not process.is_ready and -status in STOP_SIGNALS:
            # Before it could handle signals.
            status = 0
        if self._is_stopping:
            self._statuses.append(status if status >= 0 else 128 - status)
        if is_stopping and status == 0:
            self._logger.info("Worker %d, pid %d, has stopped", slot.number, process.pid)
            return
        self._logger.error(
            "%s %d, pid %d, has %s", who, slot.number, process.pid, how_ended(status)
        )
        if self._is_stopping or slot.worker is not None:
            return
        if not self._has_started and status in START_FAILURES:
            # It says why itself.
            self._failure = status
            self._stop("a worker can't start")
            return
        if monotonic() - process.began >= STABLE:
            slot.failures = 0
        self._delay(slot)

    def _send(self, number: int) -> None:
        for process in self._processes():
            process.send(number)

    def _forward(self, number: int, but: WorkerProcess | None = None) -> None:
        for process in self._processes():
            if process is not but:
                process.forward(number)

    def _stop(self, why: str) -> None:
        self._logger.info("Stopping: %s", why)
        self._systemd.send("STOPPING=1")
        self._is_stopping = True
        self._kill_at = monotonic() + self._settings.shutdown_timeout + KILL_AFTER
        self._send(signal.SIGTERM)

    # Replacing

    def _begin_replacing(self) -> None:
        if self._is_stopping:
            return
        if self._to_replace:
            self._logger.warning("The workers are being replaced already")
            return
        self._logger.info("Replacing the %d workers, one after another", self._count)
        self._to_replace = list(self._slots)

    def _replace_next(self, now: float) -> float:
        """Start the next replacement if there is one; returns when this is due again."""
        if not self._to_replace:
            return math.inf
        slot = self._to_replace[0]
        if slot.successor is None and slot.worker is not None and not slot.worker.is_stopping:
            slot.successor = self._start(slot)
            self._replaces_until = now + READY_TIMEOUT
            if slot.successor is None:
                self._replacing_failed(slot, "it can't be started")
        elif slot.successor is not None and now >= self._replaces_until:
            if not slot.successor.is_ready:
                slot.successor.send(signal.SIGKILL)
            self._replaces_until = math.inf
        return self._replaces_until

    def _replacing_failed(self, slot: WorkerSlot, why: str) -> None:
        self._to_replace.clear()
        self._replaces_until = math.inf
        self._logger.error(
            "Worker %d is not replaced, nor are those after it: %s", slot.number, why
        )
