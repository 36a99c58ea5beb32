"""The Daemon: what users see of it, and the order in which its parts start and stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from .callables import accepts, refuse_unrun, require_function
from .config.defaults import SETTINGS
from .config.loading import COMMAND_LINE, ConfigInForce, ConfigSource, Override
from .events.codec import beginning, normalize
from .events.durable.queue import DurableQueue
from .events.entry import Batch, EventQueue, RetryPolicy
from .events.intake import Intake
from .events.memory import MemoryQueue
from .events.processor import Processor
from .events.udp import UdpListener
from .exceptions import (
    BatchTooLarge,
    ConfigError,
    DaemonkitError,
    PingError,
    QueueFull,
    RegistrationError,
    StartError,
)
from .lifecycle.exit import Deadline, ExitWatch, exit_by_signal, exit_now, flush_stdout
from .lifecycle.lifecycle import STOPPED_BY_DEADLINE, Lifecycle, Parts, call_hook
from .lifecycle.signals import Coalesced, Signals
from .lifecycle.switching import set_switch_interval
from .monitoring.alerts.juggler import Outbox
from .monitoring.health import Health
from .monitoring.status import Gatherer
from .monitoring.systemd_notifier import SystemdNotifier
from .registry import HandlerSpec, Registrars
from .runtime.stacks import stacks
from .runtime.timer import Timer
from .supervision.slave import Slave, SlaveSpec, SlaveTarget, split_options
from .supervision.supervisor import Supervisor
from .system import log, sockets
from .system.systemd import NotifySocket, take_sockets, watchdog_seconds
from .text import describe, timestamp
from .types import Event
from .web.fast_lane import FastLane
from .web.routes import OK, Views, WebApp
from .web.server import Server

SAME_SIGNAL = 0.03
"""Seconds within which a signal that comes twice counts as one."""
BETWEEN_RELOADS = 1.0
"""Seconds that further SIGHUPs wait, to be one reload."""


class Daemon(Registrars):
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
        self._lazy_lock = threading.RLock()
        self._lazy_intake: tuple[EventQueue, Intake] | None = None
        self._lazy_flask: WebApp | None = None
        self._lazy_outbox: Outbox | None = None
        self._gatherer = Gatherer(self.logger)
        self._parts: Parts | None = None
        self._lifecycle: Lifecycle | None = None
        self._supervisor: Supervisor | None = None
        self._reloading = threading.Lock()
        self._health = Health()
        self._started: datetime | None = None
        self._started_clock = 0.0
        self._signal: signal.Signals | None = None
        self._signal_clock = 0.0

    # Configuration

    def configure(self, config: ConfigSource = None, overrides: Sequence[Override] = ()) -> None:
        """Load the configuration now; `config` replaces the one given to the constructor.

        Raises ConfigError, or RegistrationError once the daemon has started.
        """
        self._check_open("a configuration", "SIGHUP loads it again")
        self._load(config, overrides)

    def _load(self, config: ConfigSource, overrides: Sequence[Override] = ()) -> None:
        self._config.load(config, overrides)
        with self._lazy_lock:
            if self._lazy_intake is not None:
                # Events were queued before the configuration was known.
                self._lazy_intake[0].size = self.master_config["queue_size"]

    @property
    def config(self) -> dict[str, Any]:
        """The configuration without its section `master`; raises ConfigError when it is wrong."""
        return self._config.now.config

    @property
    def master_config(self) -> dict[str, Any]:
        """The section `master` over the defaults; raises ConfigError when it is wrong."""
        return self._config.now.master

    def _reload(self) -> None:
        """What SIGHUP does."""
        # What the hooks need may not be there before.
        self._health.begun.wait()
        with self._reloading:
            if self._parts is None or self.shutdown.is_set():
                return
            self._parts.notifier.reloading()
            try:
                self._load_again()
            finally:
                self._parts.notifier.reloaded()

    def _load_again(self) -> None:
        try:
            changed = self._config.reload()
        except ConfigError as error:
            self.logger.error("Not reloaded, the old configuration stays: %s", error)
            return
        if changed:
            self.logger.warning(
                "Changed, but in force only after a restart: %s", ", ".join(changed)
            )
        if self._config.now.source is None:
            self.logger.warning("There is no configuration file to read again")
        if fixed := [override.key for override in self._config.now.overrides]:
            self.logger.info("Fixed by the command line: %s", ", ".join(fixed))
        for path in self._config.read_once:
            self.logger.warning("%s can't be read again; what it held at first stays", path)
        logging.getLogger().setLevel(self.master_config["log_level"])
        failed = 0
        for hook in self._registry.reload_hooks:
            # What it would use may be closed by a stop hook.
            if self.shutdown.is_set():
                return
            failed += call_hook(hook, "reload", self.logger) is not None
        self.logger.info("Reloaded" + (f", but {failed} reload hooks failed" if failed else ""))

    def _log_stacks(self) -> None:
        """What SIGUSR1 does: it was asked for, so whatever `log_level` says."""
        text = f"received SIGUSR1: {stacks()}"
        record = self.logger.makeRecord(
            self.name, logging.INFO, __file__, 0, text, (), None, "_log_stacks"
        )
        self.logger.handle(record)

    # What a subclass may override

    def run(self) -> Any:
        """Runs in the main thread until shutdown; by default what `main` registered, or a wait."""
        if not self._registry.frozen:
            raise RegistrationError("run() is what start() calls; call start()")
        main = self._registry.main
        return self.shutdown.wait() if main is None else refuse_unrun(main())

    def process_event(self, event: Event, meta: Any = None) -> Any:
        """Called for each event in the event processor's thread; by default what `on_event`
        registered, or else the event is logged. An override may leave out `meta`."""
        handler = self._registry.handler
        if handler is None:
            return self.logger.info("Event: %s", beginning(event, 10_000))
        return refuse_unrun(handler.function(*((event, meta) if handler.with_meta else (event,))))

    def status(self) -> dict[str, Any]:
        """What `/status` shows; an override may add to it, or return anything."""
        queue, intake = self._intake_and_queue()
        parts = self._parts
        uptime = time.monotonic() - self._started_clock if self._started else 0.0
        shown: dict[str, Any] = {
            "name": self.name,
            "pid": os.getpid(),
            "started": timestamp(self._started),
            "uptime": round(uptime, 6),
            **self._health.shown(),
            "events_queue": len(queue),
            "events": {
                **intake.counters(),
                **queue.counters(),
                **(parts.processor.counters() if parts else {}),
            },
            "http": parts.server.counters() if parts else {},
            "udp": parts.udp.counters() if parts else {},
            "juggler": self._outbox.counters(),
            "slaves": [
                self._gatherer.call(f"The status of {c.name}", c.status, c.fallback_status)
                for c in (parts.supervisor.slaves() if parts else ())
            ],
            **self._config.now.visible(),
        }
        for name, function in list(self._registry.status_fields.items()):
            shown[name] = self._gatherer.call(f"The status field {name}", function)
        return shown

    def ping(self) -> Any:
        """The health check: returns the answer's text or raises PingError.

        By default what `on_ping` registered, or else whether all slaves and the event processor
        are well.
        """
        check = self._registry.ping
        return self.default_ping() if check is None else refuse_unrun(check())

    def default_ping(self) -> str:
        """The health check that `on_ping` replaces, for one that wants to do both."""
        problems = self._health.problems()
        if problems:
            raise PingError("".join(problem.text + "\n" for problem in problems))
        return OK

    # What users call

    def run_slave(self, target: SlaveTarget, *args: Any, **keywords: Any) -> Slave | None:
        """Start a slave in the running daemon, or with the others when it hasn't started yet.

        args, keywords: for the Slave subclass's `__init__`; of the keywords those that it doesn't
        name itself may also be options, see `slave`. Returns the slave once it is made; None while
        there is no thread to be had for it. Raises RegistrationError, also while stopping, and what
        `__init__` raises; it is then not started again.
        """
        options, arguments = split_options(target, keywords)
        spec = SlaveSpec.make(target, "run_slave", options, args, arguments)
        with self._lazy_lock:
            if self._supervisor is None:
                self._append_slave(spec)
                return None
        return self._supervisor.add(spec)

    def put_event(self, event: Event) -> None:
        """Put an event on the queue, as if it had come from outside.

        Raises QueueFull when there is no room or the daemon is stopping, InvalidEvent (a
        ValueError) for what isn't a JSON value.
        """
        self._intake_and_queue()[1].put(*normalize(event), "app")

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Have an event sent to the monitoring system Juggler; returns at once.

        status: OK, INFO, WARN or CRIT; another is a ValueError.
        """
        self._outbox.send(host, service, status, description)

    def stop(self) -> None:
        """Ask the daemon to stop; returns at once, may be called from any thread."""
        self.shutdown.set()

    @property
    def flask(self) -> WebApp:
        """The Flask app, made once; routes may be added until its first request."""
        with self._lazy_lock:
            if self._lazy_flask is None:
                views = Views(
                    intake=lambda: self._intake_and_queue()[1],
                    status=lambda: self._gatherer.call(
                        "status()", self.status, lambda: Daemon.status(self)
                    ),
                    ping=self._ping_while_open,
                    health=self._health,
                    redact=self._config.redact,
                    logger=self.logger,
                )
                self._lazy_flask = WebApp(self.blueprint, views)
            return self._lazy_flask

    def _ping_while_open(self) -> Any:
        if self.flask.closed is not None:
            raise PingError(f"{self.flask.closed}\n")
        return self.ping()

    @property
    def _outbox(self) -> Outbox:
        with self._lazy_lock:
            if self._lazy_outbox is None:
                url, timeout = (self.master_config[f"juggler_{x}"] for x in ("url", "timeout"))
                self._lazy_outbox = Outbox(
                    self.name, url, timeout, self.logger, self._config.redact
                )
            return self._lazy_outbox

    def _intake_and_queue(self) -> tuple[EventQueue, Intake]:
        with self._lazy_lock:
            if self._lazy_intake is None:
                queue: EventQueue = MemoryQueue(self.master_config["queue_size"])
                # Until the handler is known it may be one that wants them.
                queue.with_meta = queue.keep_lines = True
                self._lazy_intake = queue, Intake(queue)
            return self._lazy_intake

    def _open_queue(self) -> tuple[EventQueue, Intake]:
        """The queue that the configuration asks for, with the events that were put before."""
        master = self.master_config
        queue, intake = self._intake_and_queue()
        if master["queue"] is None:
            return queue, intake
        assert isinstance(queue, MemoryQueue)
        durable = DurableQueue(
            master["queue"],
            self.logger,
            name=self.name,
            size=master["queue_size"],
            disk=master["queue_disk"],
            ack_batch=master["ack_batch"],
            changed=self._health.changed,
        )
        durable.with_meta = True
        with self._lazy_lock:
            self._lazy_intake = durable, intake
            intake.use(durable)
        entries = queue.drained()
        try:
            if entries:
                lines = [entry.line or b"" for entry in entries]
                durable.put_many(Batch([entry.event for entry in entries], lines, "app"))
        except (QueueFull, BatchTooLarge) as error:
            raise StartError(f"the events that were put before the start: {error}") from None
        return durable, intake

    # Life

    def start(self) -> None:
        """Run until shutdown, in this thread; signals are handled if it is the main thread.

        Raises SystemExit with an exit status other than 0 when the daemon can't start, when
        `run` raises, or when it can't stop in time.
        """
        if COMMAND_LINE.get() is not None:
            raise RegistrationError(
                "start() was called while daemonkit run imports the module, and would keep it from "
                "doing its work; put it under if __name__ == '__main__':"
            )
        exit_watch, signals = ExitWatch(self.logger), Signals(self._signal_actions())
        try:
            self._freeze()
            # Before anything else is opened, which would get the number of one that is missing.
            given = take_sockets(os.environ)
            signals.start()
            log.configure(self.master_config, self._config.redact)
            set_switch_interval(self.master_config["switch_interval"])
            status = self._live(exit_now, os.environ, given)
        except DaemonkitError as error:
            print(f"{self.name}: {self._config.redact(str(error))}", file=sys.stderr)
            status = error.exit_status
        finally:
            signals.request_stop()
            signals.join(1.0)
        timeout = SETTINGS["shutdown_timeout"].default
        exit_watch.arm(
            Deadline(timeout) if self._lifecycle is None else self._lifecycle.deadline,
            STOPPED_BY_DEADLINE,
        )
        flush_stdout()
        if status:
            raise SystemExit(status)

    def _signal_actions(self) -> dict[int, Callable[[], None]]:
        reload = Coalesced(self._reload, "reload", self.logger, BETWEEN_RELOADS)
        actions: dict[int, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._stop_by(signal.SIGTERM),
            signal.SIGINT: lambda: self._stop_by(signal.SIGINT),
            signal.SIGHUP: reload.request,
        }
        # A user who has taken this one keeps it.
        if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:
            actions[signal.SIGUSR1] = Coalesced(self._log_stacks, "stacks", self.logger).request
        return actions

    def _freeze(self) -> None:
        if self._registry.frozen:
            raise RegistrationError("the daemon was started already; make another Daemon")
        self._registry.frozen = True

    def _live(
        self,
        exit_process: Callable[[int], Any],
        environ: Mapping[str, str],
        given: Sequence[socket.socket] = (),
    ) -> int:
        """Live to the end and return the exit status.

        exit_process: for a blocked thread; environ, given: what systemd says, and its sockets.
        """
        if self._config.now.source is None:
            self.logger.warning("Config file is not specified")
        self.logger.debug("Starting")
        self._started, self._started_clock = datetime.now(), time.monotonic()
        master = self.master_config

        def make_parts() -> Parts:
            try:
                self._parts = self._make_parts(environ, given)
            except BaseException as error:
                # Or the next start in this process would find its file in use.
                if self._lazy_intake is not None:
                    queue, _ = self._lazy_intake
                    queue.request_stop()
                    queue.join(1.0)
                if isinstance(error, OSError):
                    raise StartError(f"cannot start: {error}") from error
                raise
            return self._parts

        self._lifecycle = Lifecycle(
            self._health,
            make_parts=make_parts,
            logger=self.logger,
            shutdown=self.shutdown,
            drain_delay=master["drain_delay"],
            timeout=master["shutdown_timeout"],
            run=self.run,
            routes=self.flask.open_or_close,
            reason=self._why_stopped,
            reloading=self._reloading,
            start_hooks=self._registry.start_hooks,
            stop_hooks=self._registry.stop_hooks,
            exit_process=exit_process,
        )
        return self._lifecycle.live()

    def _give_up(self, reason: str) -> None:
        if self._lifecycle is not None:
            self._lifecycle.give_up(reason)

    def _stop_by(self, number: signal.Signals) -> None:
        # Called on the thread that watches signals: nothing here may wait, not even for the log.
        now = time.monotonic()
        if self._signal is None:
            self._signal, self._signal_clock = number, now
            self.shutdown.set()
        # timeout(1) and others signal the process and then its group: one wish, two signals.
        elif number != self._signal or now - self._signal_clock > SAME_SIGNAL:
            left = 0 if self._lifecycle is None else self._lifecycle.events_left()
            exit_by_signal(self.logger, number, f"{left} events are left unhandled")

    def _why_stopped(self) -> str:
        return f"received {self._signal.name}" if self._signal else "stop() was called"

    def _make_parts(self, environ: Mapping[str, str], given: Sequence[socket.socket]) -> Parts:
        master, health, timer = self.master_config, self._health, Timer(self.logger)
        queue, intake = self._open_queue()
        processor = self._make_processor(queue, timer)
        # From here on run_slave goes to the supervisor, and not to the registry.
        with self._lazy_lock:
            supervisor = self._supervisor = Supervisor(
                self._registry.slaves, self, timer, gave_up=self._give_up, changed=health.changed
            )
        try:
            self.flask.seal()
        except Exception as error:
            raise RegistrationError(f"the routes can't be put together: {error}") from error
        bound = (
            sockets.adopt(given)
            if given
            else sockets.bind(master["host"], master["port"], self.logger.warning)
        )
        self._config.set_address(bound.host if given else master["host"], bound.port)
        try:
            udp = UdpListener(bound.udp, intake, self.logger, master["udp_buffer"])
        except OSError:
            bound.close()
            raise
        whose = ", on the sockets that systemd gave" if given else ""
        self.logger.info("Listening on %s%s", sockets.format_address(bound.host, bound.port), whose)
        lane = FastLane(
            intake,
            self.flask.fast_lane_blocker,
            self._config.redact,
            master["max_request_size"],
        )
        server = Server(
            self.flask,
            bound.tcp,
            self.logger,
            outlives_us=bool(given),
            lane=lane if master["fast_events"] else None,
            threads=master["http_threads"],
            max_request_size=master["max_request_size"],
            connection_limit=master["connection_limit"],
            request_timeout=master["request_timeout"],
        )
        notifier = SystemdNotifier(
            NotifySocket(environ), health, watchdog_seconds(environ), self.logger
        )
        for part in (timer, server, processor, supervisor, udp, queue, self._outbox, notifier):
            health.add_source(part.problems)
        return Parts(
            queue, intake, server, processor, supervisor, udp, self._outbox, timer, notifier
        )

    def _make_processor(self, queue: EventQueue, timer: Timer) -> Processor:
        for name in ("run", "process_event", "status", "ping"):
            require_function(getattr(self, name), name)
        handler = self._registry.handler or HandlerSpec(self.process_event)
        function, with_meta = handler.function, handler.with_meta
        if type(self).process_event is not Daemon.process_event:
            function = self.process_event
            with_meta = accepts(function, "process_event", ("event",), ("event", "meta")) == 2
            if handler.with_meta and not with_meta:
                raise RegistrationError(
                    f"the event handler wants meta, which {type(self).__name__}.process_event "
                    "doesn't take: add a second parameter and pass it on"
                )
        processor = Processor(
            queue,
            function,
            self.logger,
            threads=handler.threads,
            batch=handler.batch,
            linger=handler.linger,
            with_meta=with_meta,
            timeout=handler.timeout,
            retry=RetryPolicy(handler.retries, handler.backoff),
            redact=self._config.redact,
            wake=timer.wake,
            changed=self._health.changed,
        )
        timer.add(processor.run_due)
        return processor
