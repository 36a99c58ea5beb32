"""Makes the parts of a daemon."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..config.defaults import Settings
from ..config.in_force import ConfigInForce
from ..events.entry import EventQueue
from ..events.memory import MemoryQueue
from ..events.processor import Processor
from ..events.udp import UdpListener
from ..exceptions import RegistrationError, StartError
from ..hooks import Hooks
from ..monitoring.health import Health
from ..monitoring.health_reporter import HealthReporter
from ..monitoring.history import History, Sample
from ..monitoring.status import jsonable
from ..monitoring.systemd_notifier import SystemdNotifier
from ..registry import HandlerSpec, Registry
from ..runtime.calls import call_hook
from ..runtime.failures import FailureLog
from ..runtime.timer import Timer
from ..supervision.restart import Intensity
from ..supervision.supervisor import Supervisor
from ..system.recent import Recent
from ..system.sockets import Sockets
from ..system.systemd import NotifySocket, watchdog_seconds
from ..types import Problem, SlaveMaster
from ..web.access import SEND
from ..web.fast_lane import FastLane
from ..web.server import Server
from .alerting import Alerting
from .binding import bind_admin, bind_public
from .durable import make_durable_queue, move_events
from .log_levels import LogLevels
from .on_demand import OnDemand
from .parts import Host, Parts


class Assembly:
    """Makes the parts of one daemon at the start.

    master: what slaves see of the daemon; on_demand: the parts that may be made earlier;
    event_handler: called when the handler is needed.
    """

    def __init__(
        self,
        master: SlaveMaster,
        on_demand: OnDemand,
        registry: Registry,
        hooks: Hooks,
        config: ConfigInForce,
        health: Health,
        event_handler: Callable[[], HandlerSpec],
    ) -> None:
        self.parts: Parts | None = None
        self.supervisor: Supervisor | None = None
        """Set before the slaves start: later ones are its to start."""
        self.levels = LogLevels(
            master.name, lambda: config.settings.log_level, master.logger, self._wake
        )
        self.history = History(self._sample)
        self.recent = Recent(config.redact)
        self._master = master
        self._on_demand = on_demand
        self._registry = registry
        self._hooks = hooks
        self._config = config
        self._health = health
        self._event_handler = event_handler
        self.alerting = Alerting(master, config, health)

    def _sample(self) -> Sample:
        parts, made = self.parts, self._on_demand
        assert parts is not None, "the timer runs"
        queue, taken = made.queue.counters(quick=True), parts.processor.counters()
        return Sample(
            **made.intake.counters(),
            handled=taken["handled"],
            failed=taken["failed"],
            waiting=queue["waiting"],
            oldest_age=queue["oldest_age"],
            calls=parts.processor.durations()[0],
        )

    def _wake(self) -> None:
        if self.parts is not None:
            self.parts.timer.wake()

    def events_left(self) -> int:
        """See `Parts.events_left`; 0 before there are parts."""
        return 0 if self.parts is None else self.parts.events_left()

    @property
    def notifier(self) -> SystemdNotifier | None:
        """What reports to systemd, None before there are parts."""
        return None if self.parts is None else self.parts.notifier

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
            self._on_demand.close_queue()
            if isinstance(error, OSError):
                raise StartError(f"cannot start: {error}") from error
            raise
        return self.parts

    def _make(
        self, host: Host, give_up: Callable[[str], None], finish: Callable[[str], None]
    ) -> Parts:
        health, logger, made = self._health, self._logger, self._on_demand
        timer = Timer(logger)
        timer.add(self.levels.run_due)
        timer.add(self.history.run_due)
        queue = self._open_queue()
        processor = self._make_processor(queue, timer)
        # From here on run_slave uses the supervisor, not the registry.
        with made.lock:
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
            made.web.seal()
        except Exception as error:
            raise RegistrationError(f"cannot register the routes: {error}") from error
        bound, admin = self._bind(host), None
        try:
            admin = bind_admin(self._settings, logger, host.worker)
            udp = self._make_udp(bound)
        except (OSError, StartError):
            for opened in filter(None, (bound, admin)):
                opened.close()
            raise
        source = ", on sockets passed by systemd" if host.sockets else ""
        if host.worker is not None:
            source = f", as {host.worker}"
        logger.info("Listening on %s%s", bound.address, source)
        self._watch_health(timer)
        self.alerting.open(queue, timer)
        parts = Parts(
            queue=queue,
            intake=made.intake,
            web=made.web,
            server=self._make_server(bound, is_passed=bool(host.sockets)),
            admin=None if admin is None else self._make_server(admin, is_admin=True),
            processor=processor,
            supervisor=supervisor,
            udp=udp,
            alerting=self.alerting,
            timer=timer,
            notifier=SystemdNotifier(
                NotifySocket(host.environ), health, watchdog_seconds(host.environ), logger
            ),
        )
        queue.use_loop(parts.server)
        health.outage = lambda: queue.outage
        timer.watch(*parts.failure_logs())
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
        is_allowed = self._on_demand.access.allows_address if settings.allow_from else None
        buffer = settings.udp_receive_buffer
        return UdpListener(bound.udp, self._on_demand.intake, self._logger, buffer, is_allowed)

    def _open_queue(self) -> EventQueue:
        """The configured queue, holding the events that were put before the start."""
        settings, before = self._settings, self._on_demand.queue
        if settings.queue is None:
            return before
        assert isinstance(before, MemoryQueue)
        durable = make_durable_queue(
            settings, self._logger, name=self._master.name, changed=self._health.changed
        )
        self._on_demand.replace_queue(durable)
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
            keeps_meta=SEND in self._on_demand.access.guarded,
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
        settings, made = self._settings, self._on_demand
        log: Callable[[Any], object] | None
        fast_lane: FastLane
        about = (made.intake, made.web.fast_lane_blocker, made.access, settings.max_request_size)
        if settings.access_log:
            from ..web.access_log import AccessLog, LoggedLane  # noqa: PLC0415

            access_log = AccessLog(self._logger, made.access)
            log, fast_lane = access_log.answered, LoggedLane(access_log, *about)
        else:
            log, fast_lane = None, FastLane(*about)
        return Server(
            made.web,
            bound.tcp,
            self._logger,
            is_passed=is_passed,
            is_admin=is_admin,
            lane=fast_lane if settings.fast_events and not is_admin else None,
            log=log,
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
