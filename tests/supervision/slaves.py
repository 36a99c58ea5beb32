"""Slaves, and what `/status` shows of them."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from daemonkit import Daemon, Slave
from daemonkit.runtime.timer import RunDue, Timer
from daemonkit.supervision.restart import Intensity
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.supervision.supervised_slave import SupervisedSlave
from daemonkit.supervision.supervisor import Supervisor
from daemonkit.testing import Client

from ..clock import Clock


class Worker(Slave):
    def __init__(self, url: str = "none", *, limit: int = 0) -> None:
        self.logger.info("making %s", self.name)
        self.arguments = (url, limit)

    def run(self) -> None:
        self.shutdown.wait()

    def status(self) -> dict[str, Any]:
        return {**super().status(), "arguments": self.arguments}


class Plain(Slave):
    def run(self) -> None: ...


class Named(Slave):
    def __init__(self, url: str, timeout: float = 1, every: float = 1) -> None:
        self.arguments = (url, timeout, every)

    def run(self) -> None: ...


class CountingTimer(Timer):
    """A timer that isn't started, and counts how often it is woken."""

    wakes = 0

    @property
    def functions(self) -> list[RunDue]:
        return self._functions

    def wake(self) -> None:
        self.wakes += 1


class Unstarted(Supervisor):
    """A supervisor whose timer is not started."""

    timer: CountingTimer


def supervisor_of(*specs: SlaveSpec, **options: Any) -> Unstarted:
    """A supervisor alone; what is due is done only when a test calls the timer's function."""
    timer = CountingTimer(logging.getLogger("app"))
    nothing: Any = lambda *_: None  # noqa: E731
    given = {
        "master": Daemon("app"),
        "of_all": Intensity(None, 60),
        "stop_timeout": 25,
        "gave_up": nothing,
        "done": nothing,
        "changed": nothing,
        "freeze": lambda value: value,
        **options,
    }
    supervisor = Unstarted(specs, timer=timer, **given)
    supervisor.timer = timer
    return supervisor


def finishing(release: threading.Event, shown: dict[str, Any] | None = None) -> type[Slave]:
    """The class of a slave that has finished, and whose thread then takes until `release` to find
    out what is to be shown of it."""

    class Finishing(Worker):
        def run(self) -> None: ...

        def status(self) -> dict[str, Any]:
            if threading.current_thread().name == self.name:
                release.wait(20)
            return shown or {}

    return Finishing


def raise_no() -> None:
    raise ValueError("no")


def names(source: Client | Daemon) -> list[str]:
    """The names of the slaves that the status shows, in its order."""
    return [slave["name"] for slave in source.status()["slaves"]]


def states(source: Client | Daemon) -> dict[str, str]:
    """The states of the slaves that the status shows, by name."""
    return {slave["name"]: slave["state"] for slave in source.status()["slaves"]}


def slave_status(client: Client, name: str) -> dict[str, Any]:
    """What `/status` shows of a slave, once it shows it: a thread may be about to add it."""

    def look() -> dict[str, Any] | None:
        return next((shown for shown in client.status()["slaves"] if shown["name"] == name), None)

    found: dict[str, Any] = client.wait_until(look, f"a slave named {name}")
    return found


def wait_for_state(client: Client, name: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        shown = slave_status(client, name)
        return shown if shown["state"] == state else None

    found: dict[str, Any] = client.wait_until(look, f"{name} {state}")
    return found


class Recorded:
    """Makes slaves that record when they start and stop, and end as a test tells them."""

    def __init__(self, app: Daemon) -> None:
        self.app = app
        self.log: list[str] = []
        self.ends: dict[str, list[BaseException | None]] = {}
        self._held: dict[str, threading.Event] = {}

    def add(self, name: str, **options: Any) -> None:
        """Register a slave, or run it once the daemon has started."""
        self.app.run_slave(self.work(name), name=name, **{"backoff": (0, 0), **options})

    def work(self, name: str) -> type[Slave]:
        """The class of a slave."""
        recorded = self

        class Work(Slave):
            # Created in order, and after that all run at the same time.
            def __init__(self) -> None:
                recorded.log.append(f"+{name}")

            def run(self) -> None:
                try:
                    recorded._work(self)
                finally:
                    if name in recorded._held:
                        recorded._held[name].wait(20)
                    recorded.log.append(f"-{name}")

        return Work

    def parent(self, name: str, *children: str | type[Slave], **options: Any) -> type[Slave]:
        """The class of a slave that starts others of its own, each a name or a class, with these
        options, and then does what it is told."""
        base: Any = self.work(name)
        given = {"backoff": (0, 0), **options}

        class Parent(base):  # type: ignore[misc]
            def run(slave) -> None:
                for child in children:
                    target = self.work(child) if isinstance(child, str) else child
                    own = child if isinstance(child, str) else child.__name__
                    slave.run_slave(target, name=own, **given)
                super().run()

        Parent.__name__ = name
        return Parent

    def _work(self, slave: Slave) -> None:
        ends = self.ends.setdefault(slave.name, [])
        while not slave.shutdown.wait(0.005):
            if ends:
                error = ends.pop(0)
                if error is not None:
                    raise error
                return

    def end(self, name: str, error: BaseException | None = None) -> None:
        """Have a slave return, or raise."""
        self.ends.setdefault(name, []).append(error)

    def fail(self, name: str) -> None:
        """Have a slave fail."""
        self.end(name, ValueError(f"{name} fails"))

    def hold(self, name: str) -> threading.Event:
        """Have a slave stop only once the event that is returned is set."""
        return self._held.setdefault(name, threading.Event())

    def wait_for(self, *log: str) -> None:
        """Wait until the log is this, and empty it."""
        until = time.monotonic() + 20
        while self.log != list(log):
            assert time.monotonic() < until, (self.log, log)
            time.sleep(0.001)
        self.log.clear()


class Supervised:
    """A supervised slave with a clock that a test moves, and what it reported."""

    def __init__(self, target: Any, **options: Any) -> None:
        self.clock, self.master = Clock(), Daemon("app")
        self.reports: list[str] = []
        self.supervisor = supervisor_of(
            SlaveSpec.make(target, "slave", {"name": "work", **options}),
            master=self.master,
            clock=self.clock,
            changed=lambda: self.reports.append(self.slave.state),
            gave_up=self.reports.append,
        )
        (self.slave,) = self.supervisor.slaves()

    def run(self) -> SupervisedSlave:
        """Start the slave and wait until its thread has ended."""
        self.supervisor.start()
        return self.end()

    def end(self) -> SupervisedSlave:
        """Wait until the slave's thread has ended."""
        assert self.slave.run is not None
        self.slave.run.thread.join(10)
        assert not self.slave.running_threads()
        return self.slave

    def at(self, seconds: float) -> float:
        """Do what is due at that time; returns when something is due again."""
        self.clock.now = seconds
        return self.supervisor.timer.functions[0](seconds)
