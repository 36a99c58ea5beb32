"""What the lifecycle works with: the parts, the user's program, the host process."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ..events.entry import EventQueue
from ..events.intake import Intake
from ..events.processor import Processor
from ..events.udp import UdpListener
from ..monitoring.systemd_notifier import SystemdNotifier
from ..runtime.failures import FailureLog
from ..runtime.timer import Timer
from ..supervision.supervisor import Supervisor
from ..system.systemd import take_sockets
from ..types import Component, Hook
from ..web.flask_app import WebApp
from ..web.server import Server
from .alerting import Alerting
from .descriptors import open_standard_descriptors
from .worker_process import WorkerPlace, worker_place


class Parts(NamedTuple):
    """The running parts of a daemon. admin, udp: None if they are not configured."""

    queue: EventQueue
    intake: Intake
    web: WebApp
    server: Server
    admin: Server | None
    processor: Processor
    supervisor: Supervisor
    udp: UdpListener | None
    alerting: Alerting
    timer: Timer
    notifier: SystemdNotifier

    def components(self) -> tuple[Component, ...]:
        """Those that run on threads; the order is that of the problems in `/ping`."""
        parts: tuple[Component | None, ...] = (
            self.timer,
            self.server,
            self.admin,
            self.processor,
            self.supervisor,
            self.udp,
            self.queue,
            self.alerting,
            self.notifier,
        )
        return tuple(part for part in parts if part is not None)

    def servers(self) -> tuple[Server, ...]:
        """Those for HTTP."""
        return (self.server,) if self.admin is None else (self.server, self.admin)

    def failure_logs(self) -> list[FailureLog]:
        """Those that the timer is to run."""
        servers = [server.failures for server in self.servers()]
        logs = [self.web.failures, *servers, *self.alerting.failure_logs()]
        return logs if self.udp is None else [*logs, self.udp.failures]

    def events_left(self) -> int:
        """Events that wait, or that a handler hasn't returned from."""
        return self.queue.lost_at_exit() + self.processor.in_work


class Program(NamedTuple):
    """The functions and hooks of the user's program, as the lifecycle calls them.

    shutdown: set to stop the daemon; run: called in the main thread; stop_reason:
    why it stops, for the log; wait_for_reload: waits so many seconds for the reload hooks.
    """

    logger: logging.Logger
    shutdown: threading.Event
    run: Callable[[], Any]
    start_hooks: Sequence[Hook]
    stop_hooks: Sequence[Hook]
    stop_reason: Callable[[], str]
    wait_for_reload: Callable[[float], object]


class Host(NamedTuple):
    """What the process gives its daemon: the environment, the sockets passed by systemd or by the
    parent of workers, and which worker it is."""

    environ: Mapping[str, str] = MappingProxyType({})
    sockets: Sequence[socket.socket] = ()
    worker: WorkerPlace | None = None

    @classmethod
    def of_process(cls) -> Host:
        """Take what this process was given, and make sure that it has standard descriptors."""
        open_standard_descriptors()
        return cls(os.environ, take_sockets(os.environ), worker_place(os.environ))
