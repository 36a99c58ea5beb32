"""Random trees of slaves with random failures, stops, restarts and additions (stateful)."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from daemonkit import Daemon, Done, RegistrationError, Slave

LONG = 20.0
"""Seconds: what takes longer never happens."""
SETTLED = {"running", "stopped", "finished", "failed", "waiting"}
DOWN = SETTLED - {"running"}
NAMES = [f"s{number}" for number in range(8)]


class Journal:
    """What the slaves do, in order; checks at once what must hold at any time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running: dict[str, object] = {}
        """For each one that runs, what marks that run."""
        self.after: dict[str, tuple[str, ...]] = {}
        self.bound: set[str] = set()
        self.limited: set[str] = set()
        self.events: list[tuple[str, str]] = []
        self.commands: dict[str, list[str]] = {}
        self.hanging: set[str] = set()
        self.released = threading.Event()
        self.wrong: list[str] = []

    def created(self, name: str, mark: object) -> None:
        with self.lock:
            self.events.append(("created", name))
            if name in self.running:
                self.wrong.append(f"{name} runs twice")
            self.running[name] = mark
            self.wrong += [
                f"{name} runs without {other}"
                for other in self.after[name]
                if name in self.bound and other not in self.running
            ]

    def asked(self, name: str) -> None:
        with self.lock:
            self.events.append(("asked", name))

    def ended(self, name: str) -> None:
        with self.lock:
            self.events.append(("ended", name))
            del self.running[name]

    def dropped(self, name: str, mark: object) -> None:
        """One that was created, and not run, because it was to stop by then."""
        if self.running.get(name) is mark:
            self.ended(name)


class Obedient(Slave):
    """Does what the journal's commands say, until it is asked to stop."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        commands = journal.commands.setdefault(self.name, [])
        if "fail init" in commands:
            commands.remove("fail init")
            raise OSError("no disk")
        mark = object()
        journal.created(self.name, mark)
        weakref.finalize(self, journal.dropped, self.name, mark)

    def run(self) -> None:
        commands = self.journal.commands[self.name]
        try:
            while not self.shutdown.wait(0.001):
                if commands and self.has_ended(commands.pop(0)):
                    return
            self.journal.asked(self.name)
            if self.name in self.journal.hanging and self.master.shutdown.is_set():
                self.journal.released.wait(LONG)
        finally:
            self.journal.ended(self.name)

    def has_ended(self, command: str) -> bool:
        if command == "fail":
            raise ValueError("no")
        if command == "done":
            raise Done
        if not command.startswith("own "):
            return True
        child = command.removeprefix("own ")
        self.run_slave(Obedient, self.journal, name=child, backoff=(0, 0), max_restarts=None)
        return False


def step(**draws: Any) -> Callable[[Any], Any]:
    """A rule that applies until the daemon is to stop."""
    return lambda f: precondition(lambda self: not self.app.shutdown.is_set())(rule(**draws)(f))


class Trees(RuleBasedStateMachine):
    """A daemon whose slaves are told what to do; after each step all that follows is awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = Journal()
        self.app = Daemon("trees")
        self.started = threading.Event()
        self.status: list[int] = []
        self.thread = threading.Thread(target=self.serve)
        self.expected = 0

    def serve(self) -> None:
        self.status.append(self.app.serve(self.started))

    def options(self, name: str, data: Any, others: list[str]) -> dict[str, Any]:
        after = (
            tuple(data.draw(st.lists(st.sampled_from(others), unique=True, max_size=3)))
            if (others)
            else ()
        )
        bound = bool(after) and data.draw(st.booleans())
        self.journal.after[name] = after
        (self.journal.bound.add if bound else self.journal.bound.discard)(name)
        stop_timeout = data.draw(st.sampled_from([None, None, 1]))
        (self.journal.limited.discard if stop_timeout is None else self.journal.limited.add)(name)
        return {
            "name": name,
            "after": after,
            "bound": bound,
            "group": data.draw(st.sampled_from([None, None, "g", "h"])),
            "restart": data.draw(st.sampled_from(["on-failure", "always"])),
            "backoff": (0, 0),
            "max_restarts": None,
            "critical": data.draw(st.booleans()),
            "stop_timeout": stop_timeout,
        }

    @initialize(data=st.data(), size=st.integers(1, 5))
    def start(self, data: Any, size: int) -> None:
        for number, name in enumerate(NAMES[:size]):
            options = self.options(name, data, NAMES[:number])
            self.app.run_slave(Obedient, self.journal, **options)
        self.app.configure(
            overlay={
                "master": {
                    "host": "127.0.0.1",
                    "port": 0,
                    "shutdown_timeout": LONG,
                    "intake": ["http"],
                }
            }
        )
        self.thread.start()
        assert self.started.wait(LONG)
        self.settle(started=True)

    def shown(self) -> dict[str, dict[str, Any]]:
        return {slave["name"]: slave for slave in self.app.status()["slaves"]}

    def settle(self, *, started: bool = False) -> None:
        """Wait until all that follows from a step has happened, and check it."""
        until = time.monotonic() + LONG
        while problems := self.unsettled():
            assert time.monotonic() < until, (problems, self.journal.events, self.shown())
            time.sleep(0.0005)
        assert self.journal.wrong == []
        self.check_order(started=started)
        self.journal.events.clear()

    def unsettled(self) -> list[str]:
        """What is still to happen."""
        shown = self.shown()
        running = {name for name, slave in shown.items() if slave["state"] == "running"}
        wrong = [f"{n}: {s['state']}" for n, s in shown.items() if s["state"] not in SETTLED]
        wrong += [f"{n} has commands" for n in running if self.journal.commands.get(n)]
        if running != self.journal.running.keys():
            wrong.append(f"running are {[*self.journal.running]}, and shown {running}")
        for name in running:
            wrong += [
                f"{name} runs without {other}"
                for other in shown[name]["bound_to"]
                if other not in running
            ]
        for name, slave in shown.items():
            if slave["state"] == "waiting" and all(o in running for o in slave["bound_to"]):
                wrong.append(f"{name} waits for nothing")
        failed = {f"the slave {n} has failed" for n, s in shown.items() if s["state"] == "failed"}
        if failed != set(self.app.status()["problems"]):
            wrong.append(f"the problems are {self.app.status()['problems']}")
        return wrong

    def check_order(self, *, started: bool) -> None:
        events = self.journal.events
        first = {event: at for at, event in reversed([*enumerate(events)])}
        for name, after in self.journal.after.items():
            for other in after:
                ended, asked = first.get(("ended", name)), first.get(("asked", other))
                # Both were to stop: the later one first.
                hung = name in self.journal.hanging
                if asked is not None and ("asked", name) in first and not hung:
                    assert ended is not None, (name, events)
                    assert ended < asked, (name, other, events)
                begun, before = first.get(("created", name)), first.get(("created", other))
                if started and begun is not None and before is not None:
                    assert before < begun, (name, other, events)

    def named(self, data: Any, states: set[str] = SETTLED) -> str | None:
        names = [name for name, slave in self.shown().items() if slave["state"] in states]
        return data.draw(st.sampled_from(sorted(names))) if names else None

    @step(data=st.data(), command=st.sampled_from(["fail", "return", "done"]))
    def end(self, data: Any, command: str) -> None:
        name = self.named(data, {"running"})
        if name is None:
            return
        before = self.shown()[name]["started"]
        self.journal.commands[name].append(command)
        self.wait_until(lambda: self.shown()[name]["started"] != before or self.down(name))
        self.settle()
        shown = self.shown()[name]
        if command == "fail" and shown["bound_to"] == []:
            assert shown["state"] == ("running" if shown["owner"] is None else shown["state"])
        if command == "done":
            assert shown["state"] == "finished"

    def down(self, name: str) -> bool:
        return self.shown().get(name, {"state": "stopped"})["state"] in DOWN

    def wait_until(self, condition: Callable[[], object]) -> None:
        until = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < until, (self.journal.events, self.shown())
            time.sleep(0.0005)

    @step(data=st.data())
    def fail_and_fail_to_be_created(self, data: Any) -> None:
        name = self.named(data, {"running"})
        if name is not None:
            self.journal.commands[name] += ["fail", "fail init", "fail init"]
            self.wait_until(lambda: not self.journal.commands[name] or self.down(name))
            self.journal.commands[name].clear()
            self.settle()

    @step(data=st.data())
    def stop_slave(self, data: Any) -> None:
        name = self.named(data)
        if name is not None:
            assert self.app.stop_slave(name, LONG) is True
            assert name not in self.journal.running
            self.settle()

    @step(data=st.data())
    def start_slave(self, data: Any) -> None:
        name = self.named(data)
        if name is not None:
            try:
                assert self.app.start_slave(name) is True
            except RegistrationError:
                assert self.down(name)
            self.settle()

    @step(data=st.data())
    def restart_slave(self, data: Any) -> None:
        name = self.named(data)
        if name is not None:
            before = self.shown()
            try:
                assert self.app.restart_slave(name, LONG) is True
            except RegistrationError:
                assert before[name]["state"] in DOWN
                return self.settle()
            self.settle()
            after = self.shown()
            group = before[name]["group"]
            for other, slave in before.items():
                together = other == name or (group is not None and slave["group"] == group)
                if together and slave["state"] == "running":
                    assert after[other]["started"] != slave["started"], other
        return None

    @step(data=st.data())
    def forget_slave(self, data: Any) -> None:
        name = self.named(data, DOWN)
        if name is not None:
            try:
                self.app.forget_slave(name)
                assert name not in self.shown()
            except RegistrationError:
                assert self.shown()[name]["state"] == "waiting" or self.bound_to(name)
            self.settle()

    def bound_to(self, name: str) -> bool:
        return any(name in slave["bound_to"] for slave in self.shown().values())

    @step(data=st.data(), name=st.sampled_from(NAMES))
    def run_slave(self, data: Any, name: str) -> None:
        shown = self.shown()
        if name in shown:
            return
        options = self.options(name, data, sorted(shown))
        self.journal.commands[name] = []
        try:
            self.app.run_slave(Obedient, self.journal, **options)
        except RegistrationError:
            # It would be bound to one that has ended, close a cycle, or not fit its group.
            assert name not in self.shown()
        self.settle()

    @step(data=st.data(), child=st.sampled_from(NAMES))
    def own(self, data: Any, child: str) -> None:
        name = self.named(data, {"running"})
        if name is None or child in self.shown():
            return
        self.journal.after[child] = ()
        self.journal.bound.discard(child)
        self.journal.commands[child] = []
        self.journal.commands[name].append(f"own {child}")
        self.wait_until(lambda: child in self.shown())
        self.settle()

    @step(data=st.data())
    def hang_at_the_end(self, data: Any) -> None:
        shown = self.shown()
        names = [
            name
            for name in self.journal.limited
            if shown.get(name, {"state": ""})["state"] == "running"
        ]
        if names:
            self.journal.hanging.add(data.draw(st.sampled_from(sorted(names))))

    @rule()
    def look(self) -> None:
        """The only step once the daemon is to stop."""
        assert self.journal.wrong == []

    @step()
    def give_up(self) -> None:
        def fatal() -> None:
            raise ValueError("no")

        self.app.run_slave(fatal, name="fatal", restart="never")
        assert self.app.shutdown.wait(LONG)
        self.expected = 1

    def check_counters(self) -> None:
        supervisor = self.app._assembly.supervisor
        assert supervisor is not None
        graph = supervisor._graph
        self.wait_until(lambda: graph.alive == 0)
        counted = [
            (slave.name, slave.dependents, slave.blockers, slave.group and slave.group.ending)
            for slave in graph.slaves.values()
            if slave.dependents or slave.blockers or (slave.group and slave.group.ending)
        ]
        assert (counted, graph.by_thread) == ([], {})

    def teardown(self) -> None:
        if self.thread.ident is None:
            return
        hangs = self.journal.hanging & self.journal.running.keys()
        begin = time.monotonic()
        self.app.stop()
        self.thread.join(2 * LONG)
        took = time.monotonic() - begin
        assert not self.thread.is_alive()
        assert self.journal.running.keys() == hangs
        self.journal.released.set()
        self.check_counters()
        assert self.journal.wrong == []
        self.check_order(started=False)
        assert self.status == [4 if hangs else self.expected]
        # Those that hang have a second, and the daemon waits no longer for them.
        assert took < LONG


def test_random_trees_keep_order_and_tell_the_truth() -> None:
    run_state_machine_as_test(
        Trees,
        settings=settings(
            max_examples=15,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
