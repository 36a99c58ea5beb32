"""The Daemon: what users register with, override and call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .alert_commands import AlertCommands, AlertSenders
from .callables import refuse_unrun, require_function
from .config.defaults import Settings
from .config.in_force import COMMAND_LINE, ConfigInForce
from .config.lint import log_warnings
from .config.loading import ConfigSource, Given, Override
from .config.secrets import redact
from .events.codec import beginning
from .exceptions import DaemonkitError, PingError, RegistrationError
from .lifecycle.assembly import Assembly
from .lifecycle.exit import Deadline, ExitWatch, exit_now, flush_stdout
from .lifecycle.lifecycle import STOPPED_BY_DEADLINE, Lifecycle
from .lifecycle.on_demand import OnDemand
from .lifecycle.operations import Operations
from .lifecycle.parts import Host, Program
from .lifecycle.reloading import Reloader
from .lifecycle.signal_actions import StopSignals, signal_actions
from .lifecycle.signals import Signals
from .lifecycle.switching import set_switch_interval
from .monitoring.health import Health
from .registry import HandlerSpec, Registrars
from .slave_commands import SlaveCommands
from .supervision.slave import Slave
from .supervision.spec import SlaveSpec
from .supervision.supervisor import Supervisor
from .system import log
from .text import describe
from .types import Event
from .web.flask_app import WebApp
from .web.routes import OK


class Daemon(AlertCommands, SlaveCommands, Registrars):
    """A daemon: register functions with it, or subclass it and override `run`, `process_event`,
    `status` or `ping`; then `start` it.

    name: of its logger and in `/status`, by default the class's name; config: a YAML file's path,
    or a mapping of the same form. It is read when first needed.
    """

    def __init__(self, name: str | None = None, config: ConfigSource = None) -> None:
        super().__init__()
        if name is not None and (not isinstance(name, str) or not name):
            raise RegistrationError(f"a daemon's name must be a string, not {describe(name)}")
        self.name = name or type(self).__name__
        self.logger = logging.getLogger(self.name)
        self.shutdown = threading.Event()
        self._config = ConfigInForce(config)
        self._health = Health()
        self._on_demand = OnDemand(
            self, self.blueprint, self._config, lambda: self._operations.views()
        )
        self._assembly = Assembly(
            self,
            self._on_demand,
            self._registry,
            self._hooks,
            self._config,
            self._health,
            self._event_handler,
        )
        self._lifecycle: Lifecycle | None = None
        self._stop_signals = StopSignals(self.shutdown, self.logger, self._assembly.events_left)
        self._reloader = Reloader(
            self._config,
            self._hooks.reload,
            self._health,
            self.shutdown,
            self.logger,
            self._assembly.levels.configuration_changed,
            lambda: self._assembly.notifier,
        )
        self._operations = Operations(
            self,
            self._registry,
            self._gauges,
            self._config,
            self._health,
            self._on_demand,
            self._assembly,
            self._stop_signals,
            self._reloader,
        )

    # Configuration

    def configure(
        self,
        config: ConfigSource = None,
        overrides: Sequence[Override] = (),
        overlay: Mapping[str, Any] | None = None,
    ) -> None:
        """Load the configuration now.

        config: replaces the one given to the constructor; overlay: a mapping that is merged over
        it. Raises ConfigError, or RegistrationError once the daemon has started.
        """
        self._check_open("a configuration", "SIGHUP loads it again")
        self._configure(Given(config, tuple(overrides), overlay))

    def _configure(self, given: Given) -> None:
        self._check_unstarted()
        self._config.load(given)
        self._on_demand.apply_limits()

    @property
    def config(self) -> dict[str, Any]:
        """The configuration without its section `master`; raises ConfigError when it is wrong."""
        return self._config.now.config

    @property
    def master_config(self) -> dict[str, Any]:
        """The section `master` over the defaults; raises ConfigError when it is wrong."""
        return self._config.now.master

    # What a subclass may override

    def run(self) -> Any:
        """Runs in the main thread until shutdown; by default what `main` registered, or a wait."""
        if not self._frozen:
            raise RegistrationError("run() is what start() calls; call start()")
        return refuse_unrun((self._registry.main or self.shutdown.wait)())

    def process_event(self, event: Event, meta: Any = None) -> Any:
        """Called for each event in the event processor's thread; by default what `on_event`
        registered, or else the event is logged. An override may leave out `meta`."""
        handler = self._registry.handler
        if handler is None:
            return self.logger.info("Event: %s", beginning(event, 10_000))
        return refuse_unrun(handler.function(*((event, meta) if handler.with_meta else (event,))))

    def status(self) -> dict[str, Any]:
        """What `/status` shows; an override may add to it, or return anything."""
        return self._operations.status.shown()

    def ping(self) -> Any:
        """The health check: returns the answer's text or raises PingError.

        By default what `on_ping` registered, or else whether all slaves and the event processor
        are healthy.
        """
        return refuse_unrun((self._registry.ping or self.default_ping)())

    def default_ping(self) -> str:
        """The health check that `on_ping` replaces, for one that wants to do both."""
        if problems := self._health.problems():
            raise PingError("".join(problem.text + "\n" for problem in problems))
        return OK

    # What users call

    def _add_slave(self, spec: SlaveSpec) -> Slave | None:
        with self._on_demand.lock:
            if self._assembly.supervisor is None:
                self._append_slave(spec)
                return None
        return self._assembly.supervisor.add(spec)

    @property
    def _supervisor(self) -> Supervisor | None:
        return self._assembly.supervisor

    def put_event(self, event: Event) -> None:
        """Put an event on the queue, as if it had been received.

        Raises QueueFull when there is no room, Unavailable (its base class) when the daemon is
        stopping or the queue's disk is not available, and InvalidEvent (a ValueError) for what
        isn't a JSON value, or EventTooLarge for one over `max_event_size`.
        """
        self._on_demand.intake.put_value(event)

    @property
    def _alert_senders(self) -> AlertSenders:
        return self._assembly.alerting

    def stop(self) -> None:
        """Ask the daemon to stop; returns at once, may be called from any thread."""
        self.shutdown.set()

    @property
    def flask(self) -> WebApp:
        """The Flask app, made once; routes may be added until its first request."""
        return self._on_demand.web

    def start(self) -> None:
        """Run until shutdown, in this thread; signals are handled if it is the main thread.

        Raises SystemExit with an exit status other than 0 when the daemon can't start, when
        `run` raises, or when it can't stop in time.
        """
        if COMMAND_LINE.get() is not None:
            raise RegistrationError(
                "start() was called while daemonkit run imports the module, which would never "
                "return; put it under if __name__ == '__main__':"
            )
        actions = signal_actions(self._stop_signals, self._reloader.request, self.logger)
        signals = Signals(actions, self._stop_signals.request.is_fresh)
        exit_watch = ExitWatch(self.logger)
        try:
            self._freeze()
            # Before anything else is opened, which could get the number of a missing descriptor.
            host = Host.of_process()
            signals.start()
            settings = self._config.start_settings()
            process = f"worker {host.worker.number}" if host.worker else ""
            with log.attached(self.name, settings, redact, self._assembly.recent, process=process):
                set_switch_interval(settings.switch_interval)
                status = self._run(host, exit_now)
        except DaemonkitError as error:
            log.print_error(self.name, error, self._config.log_format, redact)
            status = error.exit_status
        finally:
            signals.request_stop()
            signals.join(1.0)
        lifecycle = self._lifecycle
        deadline = lifecycle.deadline if lifecycle else Deadline(Settings().shutdown_timeout)
        exit_watch.arm(deadline, STOPPED_BY_DEADLINE)
        flush_stdout()
        if status:
            raise SystemExit(status)

    def serve(self, started: threading.Event | None = None) -> int:
        """Run until shutdown inside another program, and return the exit status.

        Unlike `start` it leaves signals, others' lines in the log and the end of the process alone,
        and ignores what systemd passes. started: set once the daemon is ready. Raises
        DaemonkitError when it can't start.
        """
        self._freeze()
        if started is not None:
            self._health.add_listener(lambda: started.set() if self._health.is_running else None)
        settings, recent = self._config.settings, self._assembly.recent
        with log.attached(self.name, settings, redact, recent, is_guest=True):
            return self._run(Host(), lambda _: None)

    def _run(self, host: Host, exit_process: Callable[[int], Any]) -> int:
        self._config.validate(self._hooks.validate)
        if self._config.now.source is None:
            self.logger.warning("Config file is not specified")
        log_warnings(self._config.now, self.logger)
        self.logger.debug("Starting")
        self._operations.status.start()
        program = Program(
            self.logger,
            self.shutdown,
            run=self.run,
            start_hooks=self._hooks.start,
            stop_hooks=self._hooks.stop,
            stop_reason=lambda: self._stop_signals.reason,
            wait_for_reload=self._reloader.wait_idle,
        )
        self._lifecycle = lifecycle = Lifecycle(
            program,
            lambda: self._assembly.make(host, lifecycle.give_up, lifecycle.finish),
            self._health,
            self._config.settings,
            exit_process,
        )
        try:
            return lifecycle.run()
        finally:
            self._assembly.levels.revert_all()

    def _event_handler(self) -> HandlerSpec:
        """The handler to call: what was registered, or an override of `process_event`."""
        for name in ("run", "process_event", "status", "ping"):
            require_function(getattr(self, name), name)
        handler = self._registry.handler or HandlerSpec(self.process_event)
        is_overridden = type(self).process_event is not Daemon.process_event
        return handler.overridden_by(self.process_event) if is_overridden else handler
