"""Makes the parts of a daemon."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from flask import Blueprint

from ..config.defaults import Settings
from ..config.in_force import ConfigInForce
from ..events.entry import EventQueue
from ..events.intake import Intake
from ..events.memory import MemoryQueue
from ..events.processor import Processor
from ..events.udp import NO_DATAGRAMS, UdpListener
from ..exceptions import RegistrationError, StartError
from ..hooks import Hooks
from ..monitoring.alerts.juggler import Juggler
from ..monitoring.alerts.outbox import Outbox
from ..monitoring.health import Health
from ..monitoring.health_reporter import HealthReporter
from ..monitoring.status import jsonable, without_contents
from ..monitoring.systemd_notifier import SystemdNotifier
from ..registry import HandlerSpec, Registry
from ..runtime.calls import call_hook
from ..runtime.failures import FailureLog
from ..runtime.timer import Timer
from ..supervision.restart import Intensity
from ..supervision.supervisor import Supervisor
from ..system.sockets import Sockets
from ..system.systemd import NotifySocket, watchdog_seconds
from ..types import Problem, SlaveMaster
from ..web.access import READ, Access
from ..web.fast_lane import FastLane
from ..web.flask_app import WebApp
from ..web.routes import Views
from ..web.server import Server
from .binding import bind_admin, bind_public
from .durable import make_durable_queue, move_events
from .parts import Host, Parts


class Assembly:
    """Makes the parts of one daemon: a few when they are first needed, the others at the start.

    master: what slaves see of the daemon; event_handler, status, ping: called when the handler, the
    status or the health check is needed.
    """

    def __init__(
        self,
        master: SlaveMaster,
        registry: Registry,
        hooks: Hooks,
        blueprint: Blueprint,
        config: ConfigInForce,
        health: Health,
        *,
        event_handler: Callable[[], HandlerSpec],
        status: Callable[[], Any],
        ping: Callable[[], Any],
    ) -> None:
        self.parts: Parts | None = None
        self.supervisor: Supervisor | None = None
        """Set before the slaves start: later ones are its to start."""
        self.lock = threading.RLock()
        """Guards what is made when first needed."""
        self._master = master
        self._registry = registry
        self._hooks = hooks
        self._blueprint = blueprint
        self._config = config
        self._health = health
        self._event_handler = event_handler
        self._status = status
        self._ping = ping
        self._queue: EventQueue | None = None
        self._intake: Intake | None = None
        self._web: WebApp | None = None
        self._outbox: Outbox | None = None
        self._access: Access | None = None

    # Made when first needed

    @property
    def queue(self) -> EventQueue:
        """The event queue: until the start, one in memory."""
        with self.lock:
            if self._queue is None:
                settings = self._settings
                self._queue = MemoryQueue(settings.queue_size, settings.queue_memory)
                # The handler isn't known yet; it may want them.
                self._queue.with_meta = self._queue.keep_lines = True
            return self._queue

    @property
    def intake(self) -> Intake:
        """The one way to the queue."""
        with self.lock:
            if self._intake is None:
                self._intake = Intake(self.queue, self._settings.max_event_size)
            return self._intake

    @property
    def web(self) -> WebApp:
        """The Flask app."""
        with self.lock:
            if self._web is None:
                views = Views(
                    access=lambda: self.access,
                    dead_letter=lambda id: self.queue.dead_letter(id),
                    intake=lambda: self.intake,
                    max_request_size=lambda: self._settings.max_request_size,
                    status=self._status,
                    ping=self._ping,
                    health=self._health,
                    logger=self._logger,
                )
                self._web = WebApp(self._blueprint, views)
            return self._web

    @property
    def access(self) -> Access:
        """Who may do what."""
        # Without the lock, which would cost a microsecond per request.
        if (access := self._access) is None:
            access = self._access = Access(self._settings)
        return access

    @property
    def outbox(self) -> Outbox:
        """The outbox for alerts."""
        with self.lock:
            if self._outbox is None:
                settings = self._settings
                juggler = Juggler(self._master.name, settings.juggler_url, settings.juggler_timeout)
                self._outbox = Outbox(juggler, self._logger, self._config.redact)
            return self._outbox

    def apply_limits(self) -> None:
        """Apply the settings to what was made before the configuration was known."""
        settings = self._settings
        with self.lock:
            if self._queue is not None:
                self._queue.size = settings.queue_size
                self._queue.memory_limit = settings.queue_memory
            self._access = None
            if self._intake is not None:
                self._intake.max_event_size = settings.max_event_size

    def events_left(self) -> int:
        """See `Parts.events_left`; 0 before there are parts."""
        return 0 if self.parts is None else self.parts.events_left()

    @property
    def notifier(self) -> SystemdNotifier | None:
        """What reports to systemd, None before there are parts."""
        return None if self.parts is None else self.parts.notifier

    def counters(self) -> dict[str, Any]:
        """What `/status` shows of the parts other than slaves."""
        parts = self.parts
        events = {
            **self.intake.counters(),
            **self.queue.counters(),
            **(parts.processor.counters() if parts else {}),
        }
        if READ not in self.access.guarded:
            events = without_contents(events)
        return {
            "events_queue": events["waiting"],
            "events": events,
            "http": parts.server.counters() if parts else {},
            "udp": parts.udp.counters() if parts and parts.udp else NO_DATAGRAMS,
            "juggler": self.outbox.counters(),
        }

    # Made at the start

    def make(
        self, host: Host, give_up: Callable[[str], None], finish: Callable[[str], None]
    ) -> Parts:
        """Make all parts, none of them started.

        give_up, finish: called with the reason when the daemon is to stop because a critical slave
        has failed for good, or because one that ends it is done. Raises StartError and
        RegistrationError.
        """
        try:
            self.parts = self._make(host, give_up, finish)
        except BaseException as error:
            # Otherwise the next start in this process would find its file in use.
            if self._queue is not None:
                self._queue.request_stop()
                self._queue.join(1.0)
            if isinstance(error, OSError):
                raise StartError(f"cannot start: {error}") from error
            raise
        return self.parts

    def _make(
        self, host: Host, give_up: Callable[[str], None], finish: Callable[[str], None]
    ) -> Parts:
        health, logger = self._health, self._logger
        timer = Timer(logger)
        queue = self._open_queue()
        processor = self._make_processor(queue, timer)
        # From here on run_slave uses the supervisor, not the registry.
        with self.lock:
            settings = self._settings
            supervisor = self.supervisor = Supervisor(
                self._registry.slaves,
                self._master,
                timer,
                of_all=Intensity(settings.max_restarts, settings.within),
                stop_timeout=settings.shutdown_timeout,
                gave_up=give_up,
                done=finish,
                changed=health.changed,
                freeze=lambda value: jsonable(value, self._config.redact),
            )
        try:
            self.web.seal()
        except Exception as error:
            raise RegistrationError(f"cannot register the routes: {error}") from error
        bound, admin = self._bind(host), None
        try:
            admin = bind_admin(self._settings, logger)
            udp = self._make_udp(bound)
        except (OSError, StartError):
            for opened in filter(None, (bound, admin)):
                opened.close()
            raise
        source = ", on sockets passed by systemd" if host.sockets else ""
        logger.info("Listening on %s%s", bound.address, source)
        self._watch_health(timer)
        parts = Parts(
            queue=queue,
            intake=self.intake,
            web=self.web,
            server=self._make_server(bound, is_passed=bool(host.sockets)),
            admin=None if admin is None else self._make_server(admin, is_admin=True),
            processor=processor,
            supervisor=supervisor,
            udp=udp,
            outbox=self.outbox,
            timer=timer,
            notifier=SystemdNotifier(
                NotifySocket(host.environ), health, watchdog_seconds(host.environ), logger
            ),
        )
        for part in parts.components():
            health.add_source(part.problems)
        return parts

    def _watch_health(self, timer: Timer) -> None:
        hooks, failures = self._hooks.health_change, FailureLog(self._logger, timer.wake)

        def report(problems: list[Problem]) -> None:
            for hook in hooks:
                call_hook(hook, "health change", failures, list(problems))

        if hooks:
            timer.add(failures.run_due)
            timer.add(HealthReporter(self._health, report).run_due)
            self._health.add_listener(timer.wake)

    def _bind(self, host: Host) -> Sockets:
        settings = self._settings
        bound = bind_public(settings, host.sockets, self._logger.warning)
        if bound.path is None:
            self._config.set_address(bound.host if host.sockets else settings.host, bound.port)
        return bound

    def _make_udp(self, bound: Sockets) -> UdpListener | None:
        if bound.udp is None:
            return None
        settings = self._settings
        is_allowed = self.access.allows_address if settings.allow_from else None
        buffer = settings.udp_receive_buffer
        return UdpListener(bound.udp, self.intake, self._logger, buffer, is_allowed)

    def _open_queue(self) -> EventQueue:
        """The configured queue, holding the events that were put before the start."""
        settings, before = self._settings, self.queue
        if settings.queue is None:
            return before
        assert isinstance(before, MemoryQueue)
        durable = make_durable_queue(
            settings, self._logger, name=self._master.name, changed=self._health.changed
        )
        with self.lock:
            self._queue = durable
            self.intake.use(durable)
        move_events(before, durable)
        return durable

    def _make_processor(self, queue: EventQueue, timer: Timer) -> Processor:
        handler = self._event_handler()
        processor = Processor(
            queue,
            handler.function,
            self._logger,
            threads=handler.threads,
            batch=handler.batch,
            linger=handler.linger,
            with_meta=handler.with_meta,
            timeout=handler.timeout,
            retry=handler.retry,
            redact=self._config.redact,
            wake=timer.wake,
            changed=self._health.changed,
            dead_letter_hooks=self._hooks.dead_letter,
        )
        timer.add(processor.run_due)
        return processor

    def _make_server(
        self, bound: Sockets, *, is_passed: bool = False, is_admin: bool = False
    ) -> Server:
        settings = self._settings
        fast_lane = FastLane(
            self.intake,
            self.web.fast_lane_blocker,
            self.access,
            settings.max_request_size,
        )
        return Server(
            self.web,
            bound.tcp,
            self._logger,
            is_passed=is_passed,
            is_admin=is_admin,
            lane=fast_lane if settings.fast_events and not is_admin else None,
            threads=settings.http_threads,
            max_request_size=settings.max_request_size,
            connection_limit=settings.connection_limit,
            request_timeout=settings.request_timeout,
        )

    @property
    def _settings(self) -> Settings:
        return self._config.settings

    @property
    def _logger(self) -> logging.Logger:
        return self._master.logger
