"""What becomes of the cases of Erlang/OTP's `supervisor_SUITE`, whose names the tests carry.

permanent, transient and temporary are restart="always", "on-failure" and "never" here; one_for_all
is group=, rest_for_one is bound=True, and the children of a simple_one_for_one are slaves of
`run_slave`.
"""

from __future__ import annotations

import gc
import itertools
import logging
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, Done, RegistrationError, Slave, StartError
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.testing import Client, running

from ..clock import Clock
from ..events.conditions import until
from .slaves import Recorded, Worker, raise_no, slave_status, states, supervisor_of, wait_for_state

POLICIES = ("always", "on-failure", "never")
LATE = [pytest.param(False, id="registered"), pytest.param(True, id="run_slave")]


class Unsteady(Recorded):
    """Makes slaves that also fail to be created, as a test tells them; the log has `!name` then."""

    def __init__(self, app: Daemon) -> None:
        super().__init__(app)
        self.inits: dict[str, list[BaseException | None]] = {}
        self.broken: set[str] = set()
        self.made: dict[str, Slave] = {}

    def work(self, name: str) -> type[Slave]:
        unsteady, base = self, super().work(name)

        class Work(base):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                unsteady._begin(name)
                super().__init__()
                unsteady.made[name] = self

        return Work

    def _begin(self, name: str) -> None:
        inits = self.inits.get(name)
        error = inits.pop(0) if inits else None
        if name in self.broken:
            error = OSError("no disk")
        if error is not None:
            self.log.append(f"!{name}")
            raise error

    def wait_for_each(self, *log: str) -> None:
        """Wait until the log is this, in any order, and empty it."""
        until = time.monotonic() + 20
        while sorted(self.log) != sorted(log):
            assert time.monotonic() < until, (self.log, log)
            time.sleep(0.001)
        self.log.clear()

    def wait_for_attempts(self, name: str) -> None:
        """Wait until three more attempts to create a slave have failed."""
        before = self.log.count(f"!{name}")
        until = time.monotonic() + 20
        while self.log.count(f"!{name}") < before + 3:
            assert time.monotonic() < until, self.log
            time.sleep(0.001)


@pytest.fixture
def slaves(app: Daemon) -> Unsteady:
    return Unsteady(app)


def wait_for_states(client: Client, app: Daemon, **expected: str) -> None:
    """Wait until these are the slaves and their states."""
    client.wait_until(lambda: states(app) == expected, f"{states(app)} to become {expected}")


def refusal(call: Any, *args: Any, **options: Any) -> str:
    """Why a call is refused."""
    with pytest.raises(RegistrationError) as caught:
        call(*args, **options)
    return str(caught.value)


# Starting


def test_a_daemon_without_slaves_starts_and_stops(app: Daemon) -> None:  # sup_start_normal
    with running(app) as client:
        assert client.status()["slaves"] == []
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


@pytest.mark.parametrize(
    ("restart", "late"),
    [
        pytest.param("always", True, id="sup_start_ignore_child"),
        pytest.param("never", False, id="sup_start_ignore_temporary_child"),
        pytest.param("never", True, id="sup_start_ignore_temporary_child_start_child"),
    ],
)
def test_a_slave_that_is_done_in_its_init_is_not_retried_and_the_others_start(
    app: Daemon, slaves: Unsteady, restart: Any, late: bool
) -> None:
    slaves.inits["empty"] = [Done()]

    def add() -> None:
        handle = app.run_slave(slaves.work("empty"), name="empty", restart=restart, backoff=(0, 0))
        assert handle is None
        slaves.add("other", after="empty", restart=restart)

    if not late:
        add()
    with running(app) as client:
        if late:
            add()
        wait_for_states(client, app, empty="finished", other="running")
        assert slave_status(client, "empty")["restarts"] == 0
        slaves.wait_for("!empty", "+other")
        if late:
            slaves.add("empty", restart=restart)
            slaves.wait_for("+empty")
        assert client.get("/ping").text == "OK\n"

    assert client.exit_status == 0


@pytest.mark.parametrize(
    "restart",
    [
        pytest.param("never", id="sup_start_ignore_temporary_child_start_child_simple"),
        pytest.param("always", id="sup_start_ignore_permanent_child_start_child_simple"),
    ],
)
def test_of_two_slaves_of_one_class_one_may_be_done_in_its_init(app: Daemon, restart: Any) -> None:
    class Import(Slave):
        def __init__(self, rows: int) -> None:
            if not rows:
                raise Done("nothing to do")

        def run(self) -> None:
            self.shutdown.wait()

    with running(app) as client:
        assert app.run_slave(Import, 0, name="empty", restart=restart) is None
        assert isinstance(app.run_slave(Import, 400, name="full", restart=restart), Import)
        assert states(app) == {"empty": "finished", "full": "running"}

    assert client.exit_status == 0


def test_a_start_hook_that_raises_fails_the_start_and_leaves_no_thread(
    app: Daemon, slaves: Unsteady
) -> None:  # sup_start_fail
    before = set(threading.enumerate())

    @app.on_start
    def check() -> None:
        raise OSError("no licence")

    slaves.add("work")
    with pytest.raises(StartError, match="no licence"), running(app):
        pass

    assert slaves.log == []
    until(lambda: set(threading.enumerate()) <= before)


def test_a_main_function_that_raises_stops_the_slaves_and_is_status_1(
    app: Daemon, slaves: Unsteady, caplog: pytest.LogCaptureFixture
) -> None:  # sup_start_fail
    @app.main
    def main() -> None:
        raise OSError("no licence")

    slaves.add("work")
    with running(app) as client:
        assert app.shutdown.wait(20)

    assert slaves.log == ["+work", "-work"]
    assert client.exit_status == 1
    assert "OSError: no licence" in caplog.text


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["one"], id="sup_start_child_returns_error"),
        pytest.param(["one", "two", "three"], id="sup_start_child_returns_error_simple"),
    ],
)
@pytest.mark.parametrize("restart", POLICIES)
@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(0)], ids=["error", "exit"])
def test_run_slave_raises_what_the_first_attempt_raised_and_keeps_nothing(
    app: Daemon, slaves: Unsteady, names: list[str], restart: Any, error: BaseException
) -> None:
    with running(app) as client:
        for name in names:
            slaves.inits[name] = [error]
            with pytest.raises(type(error)) as caught:
                slaves.add(name, restart=restart)
            assert caught.value is error
        assert client.status()["slaves"] == []
        slaves.wait_for(*(f"!{name}" for name in names))
        for name in names:
            slaves.add(name, restart=restart)
        slaves.wait_for(*(f"+{name}" for name in names))

    assert client.exit_status == 0


def test_a_slave_that_cannot_be_started_again_by_name_is_kept_and_retried(
    app: Daemon, slaves: Unsteady
) -> None:  # sup_start_restart_child_returns_error
    slaves.add("work", restart="always", backoff=3600)
    with running(app) as client:
        slaves.wait_for("+work")
        app.stop_slave("work")
        slaves.wait_for("-work")
        slaves.broken.add("work")
        assert app.start_slave("work") is False
        shown = wait_for_state(client, "work", "backing off")
        slaves.wait_for("!work")
        slaves.broken.clear()
        assert app.restart_slave("work")
        slaves.wait_for("+work")

    assert shown["last_error"]["error"] == "OSError: no disk"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        # sup_start_map_faulty_specs
        ({"name": ""}, "a slave's name must be a string, not '' (str)"),
        ({"name": 5}, "a slave's name must be a string, not 5 (int)"),
        ({"shutdwn": 1}, "{} has no option 'shutdwn'; the options are after, backoff, bound, "),
        ({"stop_timout": 1}, "{} has no option 'stop_timout'; did you mean 'stop_timeout'?"),
        # child_specs
        ({"restart": "permanent"}, "restart must be 'on-failure', 'always' or 'never', not "),
        ({"stop_timeout": -1}, "stop_timeout must be a number of seconds > 0, not -1 (int)"),
        ({"stop_timeout": 0}, "stop_timeout must be a number of seconds > 0, not 0 (int)"),
        ({"stop_timeout": "kill"}, "stop_timeout must be a number of seconds > 0, not 'kill' (s"),
        # child_specs_map
        ({"ends_daemon": "any"}, "ends_daemon must be True or False, not 'any' (str)"),
        # sup_flags
        ({"intensity": 1}, "{} has no option 'intensity'; the options are after, backoff, bound, "),
        ({"max_restarts": -1}, "max_restarts must be an int >= 0, or None, not -1 (int)"),
        ({"max_restarts": float("inf")}, "max_restarts must be an int >= 0, or None, not inf ("),
        ({"within": 0}, "within must be a number of seconds > 0, not 0 (int)"),
        ({"within": float("inf")}, "within must be a number of seconds > 0, not inf (float)"),
        ({"group": True}, "group must be the group's name, not True (bool)"),
    ],
)
@pytest.mark.parametrize("late", LATE)
def test_wrong_options_are_refused_at_once_and_nothing_is_kept(
    app: Daemon, options: Any, message: str, late: bool
) -> None:
    def refused(add: Any, registrar: str) -> None:
        assert refusal(add, lambda: None, **options).startswith(message.format(registrar))

    if late:
        with running(app):
            refused(app.run_slave, "run_slave")
            assert states(app) == {}
    else:
        refused(app.add_slave, "slave")
        assert app._registry.slaves == []


@pytest.mark.parametrize("late", LATE)
def test_what_is_not_a_function_or_a_slave_is_refused(app: Daemon, late: bool) -> None:
    # sup_start_map_faulty_specs
    if late:
        with running(app):
            message = refusal(app.run_slave, None)
    else:
        message = refusal(app.add_slave, None)

    registrar = "run_slave" if late else "slave"
    assert message.startswith(f"{registrar} takes a function, not None")


def test_each_combination_of_valid_options_is_accepted(app: Daemon) -> None:
    # child_specs, child_specs_map: ends_daemon with "always", too, which Done alone ends.
    combinations = list(
        itertools.product(POLICIES, (None, 0.001, 1000), (False, True), (0, 5, None), (False, True))
    )
    for number, (restart, stop_timeout, ends_daemon, most, critical) in enumerate(combinations):
        app.add_slave(
            Worker,
            name=str(number),
            restart=restart,  # type: ignore[arg-type]
            stop_timeout=stop_timeout,
            ends_daemon=ends_daemon,
            max_restarts=most,
            critical=critical,
        )
    specs = [
        (s.policy.restart, s.stop_timeout, s.ends_daemon, s.policy.max_restarts, s.critical)
        for s in app._registry.slaves
    ]

    assert len(specs) == 108
    assert specs == combinations


@pytest.mark.parametrize("late", LATE)
def test_two_slaves_of_one_name_are_refused(app: Daemon, late: bool) -> None:  # child_specs
    app.add_slave(Worker, name="work")
    if late:
        with running(app):
            message = refusal(app.run_slave, Worker, name="work")
    else:
        message = refusal(app.add_slave, Worker, name="work")

    present = "already exists" if late else "is already registered"
    assert message == f"a slave named 'work' {present}; choose another by name="


@pytest.mark.parametrize(
    "master",
    [
        {"max_restarts": -1},
        {"max_restarts": "infinity"},
        {"within": 0},
        {"within": "infinity"},
        {"intensity": 1},
    ],
    ids=lambda master: "-".join(map(str, *master.items())),
)
def test_a_wrong_limit_for_all_slaves_is_refused_at_the_start(app: Daemon, master: Any) -> None:
    # sup_flags
    with pytest.raises(ConfigError) as caught, running(app, {"master": master}):
        pass

    (option,) = master
    assert option in str(caught.value)


# Stopping


def test_slaves_without_a_time_limit_stop_with_the_daemon(app: Daemon, slaves: Unsteady) -> None:
    # sup_stop_infinity
    with running(app) as client:
        slaves.add("work", stop_timeout=None)
        app.run_slave(slaves.parent("parent", "owned"), name="parent", stop_timeout=None)
        slaves.wait_for("+work", "+parent", "+owned")

    assert sorted(slaves.log) == ["-owned", "-parent", "-work"]
    assert client.exit_status == 0


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(False, id="sup_stop_timeout"),
        pytest.param(True, id="sup_stop_timeout_dynamic"),
    ],
)
def test_a_slave_that_does_not_stop_is_named_and_holds_up_no_other(
    app: Daemon, slaves: Unsteady, late: bool, caplog: pytest.LogCaptureFixture
) -> None:
    released = slaves.hold("sleeps")

    def add() -> None:
        slaves.add("idle", restart="never")
        slaves.add("sleeps", after="idle", restart="never", stop_timeout=0.02)

    if not late:
        add()
    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        if late:
            add()
        slaves.wait_for("+idle", "+sleeps")
    stopped = [*slaves.log]
    released.set()

    assert stopped == ["-idle"]
    assert client.exit_status == 4
    assert "The thread sleeps (slaves) did not stop in time" in caplog.text


ENDS = {
    "return": None,
    "done": Done(),
    "done with a text": Done("all rows"),
    "failure": ValueError("no"),
}


def test_slaves_that_end_while_the_daemon_stops_are_not_restarted_and_do_not_end_it_early(
    app: Daemon, slaves: Unsteady
) -> None:  # sup_stop_race
    names = {f"{restart} {how}": ENDS[how] for restart in POLICIES for how in ENDS}
    slaves.add("first")
    for name in names:
        slaves.add(name, after="first", restart=name.split()[0])
    slaves.add("last", after=[*names])
    released = slaves.hold("last")
    with running(app) as client:
        client.wait_until(lambda: len(slaves.log) == 2 + len(names))
        slaves.log.clear()
        app.stop()
        wait_for_state(client, "last", "stopping")
        for name, error in names.items():
            slaves.end(name, error)
        slaves.wait_for_each(*(f"-{name}" for name in names))
        # Those that have ended show it, and the others still run.
        client.wait_until(lambda: Counter(states(app).values())["running"] == 1)
        shown = states(app)
        released.set()

    assert slaves.log == ["-last", "-first"]
    assert {name: shown[name] for name in names} == {
        name: "failed" if name.endswith("failure") else "finished" for name in names
    }
    assert client.exit_status == 0


@pytest.mark.parametrize("restart", POLICIES)
def test_how_slaves_end_when_they_are_asked_to_stop_does_not_matter(
    app: Daemon, restart: Any, caplog: pytest.LogCaptureFixture
) -> None:  # sup_stop_non_shutdown_exit_dynamic
    ran: list[str] = []

    def work(slave: Slave) -> None:
        ran.append(slave.name)
        slave.shutdown.wait()
        error = ENDS[slave.name]
        if error is not None:
            raise error

    with running(app) as client:
        for name in ENDS:
            app.run_slave(work, name=name, restart=restart, backoff=(0, 0))
        client.wait_until(lambda: len(ran) == 4)

    assert sorted(ran) == sorted(ENDS)
    assert [r.getMessage() for r in caplog.records if r.levelname in ("ERROR", "CRITICAL")] == [
        "The slave failure failed"
    ]
    assert client.exit_status == 0


@pytest.mark.parametrize("late", LATE)
def test_slaves_stop_in_parallel_and_one_that_hangs_costs_no_more_than_its_time(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:  # simple_one_for_one_shutdown
    together, ended = threading.Barrier(2), []

    def work(slave: Slave) -> None:
        slaves.log.append(f"+{slave.name}")
        slave.shutdown.wait()
        # Each waits until the other was asked to stop, too.
        together.wait(20)
        ended.append(slave.name)

    def add() -> None:
        for name in "ab":
            app.run_slave(work, name=name)
        slaves.add("hangs", stop_timeout=0.02)

    released = slaves.hold("hangs")
    if not late:
        add()
    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        if late:
            add()
        slaves.wait_for_each("+a", "+b", "+hangs")
        begin = time.monotonic()
    took = time.monotonic() - begin
    released.set()

    assert sorted(ended) == ["a", "b"]
    assert took < 300
    assert client.exit_status == 4


# By name


UNKNOWN = "there is no slave 'work'"


def test_a_slave_goes_through_each_state_by_name(app: Daemon, slaves: Unsteady) -> None:
    # child_adm
    with running(app) as client:
        for call in (app.stop_slave, app.start_slave, app.restart_slave, app.forget_slave):
            assert refusal(call, "work") == UNKNOWN
        slaves.add("work", restart="always")
        slaves.wait_for("+work")

        # While it runs
        assert refusal(slaves.add, "work") == (
            "a slave named 'work' already exists; choose another by name="
        )
        assert app.start_slave("work")
        assert refusal(app.forget_slave, "work") == "the slave 'work' is running; stop it first"
        assert app.restart_slave("work")
        slaves.wait_for("-work", "+work")

        # While it is stopped
        assert app.stop_slave("work")
        slaves.wait_for("-work")
        assert app.stop_slave("work")
        assert states(app) == {"work": "stopped"}
        assert app.start_slave("work")
        slaves.wait_for("+work")
        assert app.stop_slave("work")
        slaves.wait_for("-work")
        slaves.add("work", restart="always")
        slaves.wait_for("+work")
        assert app.stop_slave("work")
        slaves.wait_for("-work")
        app.forget_slave("work")
        assert states(app) == {}
        for call in (app.stop_slave, app.start_slave, app.restart_slave, app.forget_slave):
            assert refusal(call, "work") == UNKNOWN

    assert slaves.log == []
    assert client.exit_status == 0


def test_a_slave_added_anew_is_restarted_like_any_other(app: Daemon, slaves: Unsteady) -> None:
    # extra_return
    with running(app) as client:
        slaves.add("work", restart="always")
        app.stop_slave("work")
        app.forget_slave("work")
        assert refusal(app.start_slave, "work") == UNKNOWN
        slaves.wait_for("+work", "-work")
        slaves.add("work", restart="always")
        slaves.wait_for("+work")
        slaves.fail("work")
        slaves.wait_for("-work", "+work")
        assert slave_status(client, "work")["restarts"] == 1


@pytest.mark.parametrize("restart", POLICIES)
def test_a_stop_by_name_leaves_the_other_slaves_of_that_function(
    app: Daemon, restart: Any
) -> None:  # child_adm_simple
    def work(slave: Slave) -> None:
        slave.shutdown.wait()

    stranger = threading.Thread(target=app.shutdown.wait, name="stranger")
    stranger.start()
    with running(app) as client:
        for name in "ab":
            app.run_slave(work, name=name, restart=restart)
        assert app.stop_slave("a")
        assert states(app) == {"a": "stopped", "b": "running"}
        assert app.stop_slave("a")
        assert refusal(app.stop_slave, "stranger") == "there is no slave 'stranger'"
        assert stranger.is_alive()
    stranger.join(20)

    assert client.exit_status == 0


# Restarts and their limits


def test_restarts_before_the_period_do_not_count() -> None:  # multiple_restarts
    clock, reports = Clock(), list[str]()
    options: Any = {"name": "work", "restart": "always", "backoff": (1, 1)}
    spec = SlaveSpec.make(raise_no, "slave", {**options, "max_restarts": 1, "within": 1})
    supervisor = supervisor_of(spec, clock=clock, gave_up=reports.append)
    (slave,) = supervisor.slaves()

    def end() -> tuple[str, int]:
        assert slave.run is not None
        # The wait for the restart is not counted.
        slave.run.thread.join(20)
        return slave.state, slave.restarts

    supervisor.start()
    for restarts in range(5):
        assert end() == ("backing off", restarts)
        clock.now += 2.1
        supervisor.timer.functions[0](clock.now)
    assert end() == ("backing off", 5)
    clock.now += 1.9
    supervisor.timer.functions[0](clock.now)
    assert end() == ("failed", 6)
    assert reports == ["the slave work gave up"]


OF_ALL = {"master": {"max_restarts": 2, "within": "1h"}}


@pytest.mark.parametrize(
    "late", [pytest.param(False, id="one_for_one"), pytest.param(True, id="simple_one_for_one")]
)
def test_a_failure_restarts_no_other_slave_but_one_limit_counts_for_all(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:
    def add() -> None:
        slaves.add("a", restart="always")
        slaves.add("b", after="a", restart="always")

    if not late:
        add()
    with running(app, OF_ALL) as client:
        if late:
            add()
        slaves.wait_for("+a", "+b")
        for name in "ab":
            slaves.fail(name)
            slaves.wait_for(f"-{name}", f"+{name}")
        slaves.fail("a")
        assert app.shutdown.wait(20)

    assert slaves.log == ["-a", "-b"]
    assert client.exit_status == 1


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(False, id="one_for_one_escalation"),
        pytest.param(True, id="simple_one_for_one_escalation"),
    ],
)
@pytest.mark.parametrize("limit", ["own", "of all"])
def test_failed_attempts_to_restart_a_slave_count_and_it_gives_up(
    app: Daemon, slaves: Unsteady, late: bool, limit: str
) -> None:
    def add() -> None:
        slaves.add("a", max_restarts=4 if limit == "own" else None)
        slaves.add("b", after="a")

    if not late:
        add()
    with running(app, {"master": {"max_restarts": None if limit == "own" else 4}}) as client:
        if late:
            add()
        slaves.wait_for("+a", "+b")
        slaves.broken.add("a")
        slaves.fail("a")
        assert app.shutdown.wait(20)

    assert slaves.log == ["-a", *["!a"] * 4, "-b"]
    assert client.exit_status == 1


@pytest.mark.parametrize("limit", ["of the group", "of all"])
def test_a_group_is_restarted_as_a_whole_and_that_counts_once(
    app: Daemon, slaves: Unsteady, limit: str
) -> None:  # one_for_all
    most = 2 if limit == "of the group" else None
    slaves.add("a", restart="always", group="g", max_restarts=most)
    slaves.add("b", after="a", restart="always", group="g", max_restarts=most)
    with running(app, {} if most else OF_ALL) as client:
        slaves.wait_for("+a", "+b")
        slaves.fail("a")
        slaves.wait_for("-a", "-b", "+a", "+b")
        slaves.fail("b")
        slaves.wait_for("-b", "-a", "+a", "+b")
        slaves.fail("a")
        assert app.shutdown.wait(20)

    assert slaves.log == ["-a", "-b"]
    assert client.exit_status == 1


@pytest.mark.parametrize("limit", ["of the group", "of all"])
def test_a_member_that_fails_in_the_restart_of_its_group_uses_up_the_limit(
    app: Daemon, slaves: Unsteady, limit: str
) -> None:  # one_for_all_escalation
    most = 4 if limit == "of the group" else None
    slaves.add("a", group="g", max_restarts=most)
    slaves.add("b", after="a", group="g", max_restarts=most)
    with running(app, {"master": {"max_restarts": None if most else 4}}) as client:
        slaves.wait_for("+a", "+b")
        slaves.broken.add("b")
        slaves.fail("a")
        assert app.shutdown.wait(20)

    assert slaves.log == ["-a", "-b", *["+a", "!b", "-a"] * 4]
    assert client.exit_status == 1


@pytest.mark.parametrize("forgets", [True, False])
def test_a_failed_group_without_its_members_does_not_keep_a_new_one_from_starting(
    app: Daemon, slaves: Unsteady, forgets: bool
) -> None:  # one_for_all_escalation
    options: Any = {"group": "g", "max_restarts": 0, "critical": False}
    with running(app) as client:
        slaves.add("a", **options)
        slaves.fail("a")
        wait_for_states(client, app, a="failed")
        if forgets:
            app.forget_slave("a")
        slaves.add("a", **options)
        assert states(app) == {"a": "running"}


def test_a_group_without_members_takes_the_options_of_the_next_one(
    app: Daemon, slaves: Unsteady
) -> None:  # one_for_all
    with running(app):
        slaves.add("a", group="g", max_restarts=3)
        app.stop_slave("a")
        app.forget_slave("a")
        slaves.add("b", group="g", max_restarts=4)
        assert states(app) == {"b": "running"}


@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(0)], ids=["error", "exit"])
def test_a_group_that_is_restarted_in_part_is_taken_down_and_restarted_whole(
    app: Daemon, slaves: Unsteady, error: BaseException
) -> None:  # one_for_all_other_child_fails_restart
    slaves.add("a", group="g")
    slaves.add("b", after="a", group="g")
    with running(app) as client:
        slaves.wait_for("+a", "+b")
        slaves.inits["b"] = [error]
        slaves.fail("a")
        slaves.wait_for("-a", "-b", "+a", "!b", "-a", "+a", "+b")
        assert [slave_status(client, name)["restarts"] for name in "ab"] == [2, 2]


def test_a_member_that_is_done_in_the_restart_of_its_group_leaves_the_others_running(
    app: Daemon, slaves: Unsteady
) -> None:  # one_for_all_other_child_fails_restart
    for name, after in (("a", ()), ("b", "a"), ("c", "b")):
        slaves.add(name, after=after, group="g")
    with running(app) as client:
        slaves.wait_for("+a", "+b", "+c")
        slaves.inits["b"] = [Done()]
        slaves.fail("a")
        slaves.wait_for("-a", "-c", "-b", "+a", "!b", "+c")
        wait_for_states(client, app, a="running", b="finished", c="running")


@pytest.mark.parametrize("restart", ["on-failure", "always"])
def test_a_slave_that_is_done_in_the_init_of_a_restart_is_not_tried_again(
    app: Daemon, slaves: Unsteady, restart: Any
) -> None:  # simple_one_for_one_restart_ignore
    with running(app) as client:
        slaves.add("work", restart=restart)
        slaves.wait_for("+work")
        slaves.fail("work")
        slaves.wait_for("-work", "+work")
        slaves.inits["work"] = [Done()]
        slaves.fail("work")
        wait_for_state(client, "work", "finished")
        assert client.get("/ping").text == "OK\n"

    assert slaves.log == ["-work", "!work"]
    assert client.exit_status == 0


def chain(slaves: Unsteady, *names: str, **options: Any) -> None:
    """Add slaves of which each but the first is bound to the one before."""
    slaves.add(names[0], **options)
    for before, name in itertools.pairwise(names):
        slaves.add(name, after=before, bound=True, **options)


def test_slaves_after_the_one_that_failed_restart_with_it_and_those_before_run_on(
    app: Daemon, slaves: Unsteady
) -> None:  # rest_for_one
    chain(slaves, "a", "b", "c", restart="always")
    with running(app, OF_ALL) as client:
        slaves.wait_for("+a", "+b", "+c")
        started = slave_status(client, "a")["started"]
        slaves.fail("b")
        slaves.wait_for("-b", "-c", "+b", "+c")
        assert slave_status(client, "a")["started"] == started
        slaves.fail("c")
        slaves.wait_for("-c", "+c")
        slaves.fail("b")
        assert app.shutdown.wait(20)

    assert slaves.log == ["-b", "-c", "-a"]
    assert client.exit_status == 1


@pytest.mark.parametrize(("limit", "attempts"), [("own", 5), ("of all", 4)])
def test_a_bound_slave_that_fails_in_the_common_restart_uses_up_the_limit(
    app: Daemon, slaves: Unsteady, limit: str, attempts: int
) -> None:  # rest_for_one_escalation
    chain(slaves, "a", "b", max_restarts=4 if limit == "own" else None)
    with running(app, {"master": {"max_restarts": None if limit == "own" else 4}}) as client:
        slaves.wait_for("+a", "+b")
        slaves.broken.add("b")
        slaves.fail("a")
        assert app.shutdown.wait(20)

    # Of its own restarts the one with the other slave is none; of all, that slave's was the first.
    assert slaves.log == ["-a", "-b", "+a", *["!b"] * attempts, "-a"]
    assert client.exit_status == 1


@pytest.mark.parametrize("error", [OSError("no disk"), SystemExit(0)], ids=["error", "exit"])
def test_a_common_restart_is_retried_from_the_bound_slave_that_failed(
    app: Daemon, slaves: Unsteady, error: BaseException
) -> None:  # rest_for_one_other_child_fails_restart
    chain(slaves, "a", "b", "c")
    with running(app) as client:
        slaves.wait_for("+a", "+b", "+c")
        slaves.inits["b"] = [error]
        slaves.fail("a")
        slaves.wait_for("-a", "-c", "-b", "+a", "!b", "+b", "+c")
        assert [slave_status(client, name)["restarts"] for name in "abc"] == [1, 1, 0]


# Policies


@pytest.mark.parametrize(
    ("restart", "error"),
    [
        pytest.param("always", None, id="permanent_normal"),
        pytest.param("always", ValueError("no"), id="permanent_abnormal"),
        pytest.param("on-failure", ValueError("no"), id="transient_abnormal"),
    ],
)
def test_a_slave_runs_again_after_each_end_that_its_policy_names(
    app: Daemon, slaves: Unsteady, restart: Any, error: BaseException | None
) -> None:
    slaves.add("work", restart=restart)
    with running(app) as client:
        slaves.wait_for("+work")
        for restarts in (1, 2):
            slaves.end("work", error)
            slaves.wait_for("-work", "+work")
            assert wait_for_state(client, "work", "running")["restarts"] == restarts


@pytest.mark.parametrize(
    ("restart", "error", "state"),
    [
        pytest.param("on-failure", None, "finished", id="transient_normal"),
        pytest.param("never", None, "finished", id="temporary_normal"),
        pytest.param("always", Done(), "finished", id="permanent_shutdown"),
        pytest.param("always", Done("all rows"), "finished", id="permanent_shutdown-text"),
        pytest.param("never", ValueError("no"), "failed", id="temporary_abnormal"),
    ],
)
def test_a_slave_stays_down_after_other_ends_and_is_still_shown(
    app: Daemon, slaves: Unsteady, restart: Any, error: BaseException | None, state: str
) -> None:
    slaves.add("work", restart=restart, critical=False)
    slaves.add("other")
    with running(app) as client:
        slaves.wait_for_each("+work", "+other")
        slaves.end("work", error)
        wait_for_states(client, app, work=state, other="running")
        assert not app.shutdown.is_set()
        ping = client.get("/ping").text

    assert ping == ("OK\n" if state == "finished" else "the slave work has failed\n")
    assert slaves.log == ["-work", "-other"]
    assert client.exit_status == 0


def test_a_slave_that_was_done_can_be_started_again_by_name(app: Daemon, slaves: Unsteady) -> None:
    # transient_shutdown
    slaves.add("work")
    with running(app) as client:
        for error in (Done(), Done("all rows")):
            slaves.wait_for("+work")
            slaves.end("work", error)
            slaves.wait_for("-work")
            wait_for_states(client, app, work="finished")
            assert app.start_slave("work")


@pytest.mark.parametrize("late", LATE)
def test_the_name_of_a_slave_that_was_done_can_be_given_anew(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:  # temporary_shutdown
    if not late:
        slaves.add("work", restart="never")
    with running(app) as client:
        if late:
            slaves.add("work", restart="never")
        for error in (Done(), Done("all rows")):
            slaves.wait_for("+work")
            slaves.end("work", error)
            slaves.wait_for("-work")
            wait_for_states(client, app, work="finished")
            slaves.add("work", restart="never")


def test_a_daemon_whose_slave_cannot_be_created_names_it_and_the_cause(
    app: Daemon, slaves: Unsteady, caplog: pytest.LogCaptureFixture
) -> None:  # faulty_application_shutdown
    caplog.set_level("INFO")
    slaves.broken.add("conn")
    slaves.add("conn", max_restarts=1)
    with running(app) as client:
        assert app.shutdown.wait(20)

    assert slaves.log == ["!conn", "!conn"]
    assert client.exit_status == 1
    first, *_ = [record for record in caplog.records if record.levelname == "ERROR"]
    assert first.getMessage() == "The slave conn failed; restart 1 in 0 s"
    assert first.exc_info is not None
    assert repr(first.exc_info[1]) == "OSError('no disk')"
    assert "Stopping: the slave conn gave up" in caplog.messages


def test_a_group_of_parents_restarts_with_what_they_start_in_run_and_with_nothing_else(
    app: Daemon, slaves: Unsteady
) -> None:  # tree
    for name, after, owned in (
        ("static", (), ["one"]),
        ("dynamic", "static", []),
        ("third", "dynamic", []),
    ):
        parent = slaves.parent(name, *owned)
        app.add_slave(parent, name=name, after=after, group="top", backoff=(0, 0))
    with running(app) as client:
        slaves.wait_for_each("+static", "+one", "+dynamic", "+third")
        app.stop_slave("third")
        slaves.wait_for("-third")
        for name in ("two", "three"):
            work = slaves.work(name)
            slaves.made["dynamic"].run_slave(
                work, name=name, backoff=(0, 0), max_restarts=1, critical=False
            )
            slaves.wait_for(f"+{name}")
        slaves.fail("two")
        slaves.wait_for("-two", "+two")

        # A child that gives up has its parent run on, unlike OTP's.
        slaves.broken.add("three")
        slaves.fail("three")
        slaves.wait_for("-three", "!three")
        wait_for_state(client, "three", "failed")
        assert slave_status(client, "dynamic")["state"] == "running"

        slaves.fail("dynamic")
        # And one that was stopped by name stays stopped.
        slaves.wait_for_each(
            *("-dynamic", "-two", "-static", "-one", "+static", "+one", "+dynamic")
        )
        expected = dict.fromkeys(("static", "one", "dynamic"), "running")
        wait_for_states(client, app, **expected, third="stopped", two="stopped", three="stopped")
        assert [slave_status(client, name)["restarts"] for name in ("static", "two")] == [1, 1]


# Slaves that end the daemon


@pytest.mark.parametrize(
    "restart",
    [
        pytest.param("never", id="nonsignificant_temporary"),
        pytest.param("on-failure", id="nonsignificant_transient"),
    ],
)
def test_without_ends_daemon_no_end_of_the_last_slave_ends_the_daemon(
    app: Daemon, slaves: Unsteady, restart: Any
) -> None:
    with running(app) as client:
        slaves.add("work", restart=restart, critical=False)
        app.stop_slave("work")
        slaves.wait_for("+work", "-work")
        for error in (None, Done()):
            slaves.add("work", restart=restart, critical=False)
            slaves.end("work", error)
            slaves.wait_for("+work", "-work")
            wait_for_states(client, app, work="finished")
        slaves.add("work", restart=restart, critical=False)
        slaves.fail("work")
        if restart == "never":
            slaves.wait_for("+work", "-work")
            wait_for_states(client, app, work="failed")
        else:
            slaves.wait_for("+work", "-work", "+work")
            app.stop_slave("work")
        app.forget_slave("work")
        assert client.get("/ping").text == "OK\n"
        assert not app.shutdown.is_set()

    assert client.exit_status == 0


@pytest.mark.parametrize(
    ("restart", "error", "exit_status"),
    [
        pytest.param("never", None, 0, id="significant_temporary-return"),
        pytest.param("never", Done(), 0, id="significant_temporary-done"),
        pytest.param("never", ValueError("no"), 1, id="significant_temporary-failure"),
        pytest.param("on-failure", None, 0, id="significant_transient-return"),
        pytest.param("on-failure", Done(), 0, id="significant_transient-done"),
        pytest.param("always", Done(), 0, id="child_specs_map-done"),
    ],
)
@pytest.mark.parametrize("late", LATE)
def test_an_end_of_a_slave_that_ends_the_daemon_stops_the_others_too(
    app: Daemon,
    slaves: Unsteady,
    restart: Any,
    error: BaseException | None,
    exit_status: int,
    late: bool,
) -> None:
    def add() -> None:
        slaves.add("job", restart=restart, ends_daemon=True)
        slaves.add("other", after="job")

    if not late:
        add()
    with running(app) as client:
        if late:
            add()
        slaves.wait_for("+job", "+other")
        slaves.end("job", error)
        assert app.shutdown.wait(20)

    assert slaves.log == ["-job", "-other"]
    assert client.exit_status == exit_status


@pytest.mark.parametrize(
    ("restart", "error", "state"),
    [
        pytest.param("never", ValueError("no"), "failed", id="significant_temporary-failure"),
        pytest.param("on-failure", ValueError("no"), "running", id="significant_transient-failure"),
        pytest.param("always", None, "running", id="child_specs_map-return"),
    ],
)
def test_neither_a_stop_by_name_nor_a_tolerable_failure_nor_a_restart_ends_the_daemon(
    app: Daemon, slaves: Unsteady, restart: Any, error: BaseException | None, state: str
) -> None:
    slaves.add("job", restart=restart, critical=False, ends_daemon=True)
    with running(app) as client:
        slaves.wait_for("+job")
        app.stop_slave("job")
        slaves.wait_for("-job")
        wait_for_states(client, app, job="stopped")
        app.start_slave("job")
        slaves.wait_for("+job")
        slaves.end("job", error)
        slaves.wait_for("-job", *["+job"] * (state == "running"))
        wait_for_states(client, app, job=state)
        assert not app.shutdown.is_set()

    assert client.exit_status == 0


def linked(slaves: Unsteady, kind: str, *names: str, **options: Any) -> None:
    """Add slaves of one group, or of which each is bound to the one before; or independent ones,
    which start in order all the same."""
    bound, group = kind == "bound", "g" if kind == "group" else None
    slaves.add(names[0], group=group, **options)
    for before, name in itertools.pairwise(names):
        slaves.add(name, after=before, bound=bound, group=group, **options)


@pytest.mark.parametrize(
    ("kind", "stopped", "started"),
    [
        ("independent", [], ["+work"]),
        ("bound", ["-last"], ["+work", "+last"]),
        ("group", ["-last", "-first"], ["+first", "+work", "+last"]),
    ],
)
def test_slaves_that_end_the_daemon_do_not_when_a_restart_of_others_stops_them(
    app: Daemon, slaves: Unsteady, kind: str, stopped: list[str], started: list[str]
) -> None:  # significant_bystander
    linked(slaves, kind, "first", "work", "last", ends_daemon=True)
    with running(app) as client:
        slaves.wait_for("+first", "+work", "+last")
        slaves.fail("work")
        slaves.wait_for("-work", *stopped, *started)
        wait_for_states(client, app, first="running", work="running", last="running")
        assert not app.shutdown.is_set()
        slaves.end("last")
        assert app.shutdown.wait(20)

    assert client.exit_status == 0


def test_a_slave_that_is_done_when_others_have_it_stopped_does_not_end_the_daemon(
    app: Daemon, slaves: Unsteady
) -> None:  # significant_bystander
    def job(slave: Slave) -> None:
        slave.shutdown.wait()
        raise Done

    slaves.add("conn")
    app.add_slave(job, after="conn", bound=True, ends_daemon=True)
    with running(app) as client:
        wait_for_states(client, app, conn="running", job="running")
        slaves.fail("conn")
        wait_for_states(client, app, conn="running", job="finished")
        assert not app.shutdown.is_set()


@pytest.mark.parametrize("ends_daemon", [True, False])
def test_an_owned_slave_may_end_the_daemon_but_never_its_parent_alone(
    app: Daemon, slaves: Unsteady, ends_daemon: bool
) -> None:  # significant_escalation
    app.add_slave(slaves.parent("parent"), name="parent")
    with running(app) as client:
        slaves.wait_for("+parent")
        slaves.made["parent"].run_slave(slaves.work("job"), name="job", ends_daemon=ends_daemon)
        slaves.wait_for("+job")
        slaves.end("job")
        if ends_daemon:
            assert app.shutdown.wait(20)
        else:
            wait_for_states(client, app, parent="running", job="finished")
            assert not app.shutdown.is_set()

    assert slaves.log == ["-job", "-parent"]
    assert client.exit_status == 0


# What is shown, and what is kept


def test_the_slaves_shown_are_those_that_run(app: Daemon) -> None:  # count_children
    released = threading.Event()

    def work(slave: Slave) -> None:
        released.wait(20)

    with running(app) as client:
        for count in (50, 100):
            for number in range(count - 50, count):
                app.run_slave(work, name=str(number), restart="never")
            wait_for_states(client, app, **{str(number): "running" for number in range(count)})
            assert len(client.status()["slaves"]) == count
        released.set()
        wait_for_states(client, app, **{str(number): "finished" for number in range(100)})


def test_slaves_whose_restarts_keep_failing_are_shown_but_not_as_running(
    app: Daemon, slaves: Unsteady
) -> None:  # count_restarting_children
    with running(app) as client:
        for name in "abc":
            slaves.add(name, restart="always", max_restarts=None, backoff=(0.001, 0.001))
        slaves.wait_for("+a", "+b", "+c")
        for name in "abc":
            slaves.fail(name)
            slaves.wait_for(f"-{name}", f"+{name}")
        slaves.broken |= {"b", "c"}
        for name in "bc":
            slaves.fail(name)
            slaves.wait_for_attempts(name)
        shown = states(app)
        assert shown.pop("a") == "running"
        assert set(shown) == {"b", "c"}
        assert set(shown.values()) <= {"backing off", "starting"}
        slaves.broken.clear()
        wait_for_states(client, app, a="running", b="running", c="running")
        for number, name in enumerate("abc", 1):
            app.stop_slave(name)
            assert Counter(states(app).values()) == Counter(stopped=number, running=3 - number)


@pytest.mark.parametrize("late", LATE)
def test_the_status_and_what_is_done_by_name_agree(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:  # which_children, which_children_simple_one_for_one
    restart = "never" if late else "always"
    if not late:
        slaves.add("a", restart=restart)
    with running(app):
        if late:
            assert states(app) == {}
            slaves.add("a", restart=restart)
        assert states(app) == {"a": "running"}
        slaves.add("b", after="a", restart=restart)
        assert states(app) == {"a": "running", "b": "running"}
        app.stop_slave("a")
        assert states(app) == {"a": "stopped", "b": "running"}
        app.forget_slave("a")
        assert states(app) == {"b": "running"}
        assert refusal(app.stop_slave, "a") == "there is no slave 'a'"


class Data:
    """Something large."""


class Import(Slave):
    def __init__(
        self, data: Data, released: threading.Event, error: type[Exception] | None
    ) -> None:
        self.data, self.released, self.error = data, released, error

    def run(self) -> None:
        self.released.wait(20)
        if self.error is not None:
            raise self.error


@pytest.fixture
def no_cycles() -> Iterator[None]:
    """Memory is to be freed at once, not only when Python looks for cycles."""
    gc.disable()
    yield
    gc.enable()


def wait_for_end(client: Client, name: str, state: str) -> None:
    """Wait until a slave is over, and its thread, too."""
    wait_for_state(client, name, state)
    until(lambda: name not in {thread.name for thread in threading.enumerate()})


def is_freed(ref: weakref.ref[Data]) -> bool:
    """Whether nothing keeps it; a thread that answers `/status` may do so for a moment."""
    end = time.monotonic() + 0.5
    while ref() is not None and time.monotonic() < end:
        time.sleep(0.001)
    return ref() is None


@pytest.mark.usefixtures("no_cycles")
@pytest.mark.parametrize(
    ("restart", "error"),
    [
        ("never", None),
        ("on-failure", None),
        ("never", Done),
        ("on-failure", Done),
        ("always", Done),
    ],
)
def test_the_arguments_of_a_finished_slave_are_not_kept(
    app: Daemon, restart: Any, error: type[Exception] | None
) -> None:  # do_not_save_start_parameters_for_temporary_children
    released, data = threading.Event(), Data()
    kept = weakref.ref(data)
    with running(app) as client:
        app.run_slave(Import, data, released, error, name="job", restart=restart)
        del data
        assert kept() is not None
        released.set()
        wait_for_end(client, "job", "finished")
        assert is_freed(kept)


@pytest.mark.usefixtures("no_cycles")
def test_a_slave_that_fails_has_the_arguments_of_no_later_ones_kept(app: Daemon) -> None:
    # simple_one_for_one_corruption
    released = threading.Event()
    released.set()
    kept: list[weakref.ref[Data]] = []
    with running(app) as client:
        for name, error in (("fails", ValueError), ("returns", None)):
            data = Data()
            kept.append(weakref.ref(data))
            options: Any = {"name": name, "restart": "never", "critical": False}
            app.run_slave(Import, data, released, error, **options)
            del data
            wait_for_end(client, name, "failed" if error else "finished")

        # The one that failed could be started again by name.
        assert is_freed(kept[1])
        assert kept[0]() is not None
        app.start_slave("fails")
        wait_for_end(client, "fails", "failed")
        assert len(slave_status(client, "fails")["last_restarts"]) == 1


@pytest.mark.parametrize("how", ["forget_slave", "run_slave"])
def test_a_slave_that_failed_and_was_forgotten_has_its_arguments_freed(
    app: Daemon, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # simple_one_for_one_corruption
    # pytest would keep the record of the failure, and with its traceback the slave.
    monkeypatch.setattr(logging.getLogger("app.work"), "disabled", True)
    released, data = threading.Event(), Data()
    released.set()
    kept = weakref.ref(data)
    with running(app) as client:
        options: Any = {"name": "work", "restart": "never", "critical": False}
        app.run_slave(Import, data, released, ValueError, **options)
        del data
        wait_for_end(client, "work", "failed")
        if how == "forget_slave":
            app.forget_slave("work")
        else:
            app.run_slave(Worker, name="work")
        gc.collect()
        assert is_freed(kept)


@pytest.mark.parametrize("others", ["stopped", "forgotten"])
def test_a_slave_that_failed_is_shown_whatever_became_of_others(
    app: Daemon, slaves: Unsteady, others: str, monkeypatch: pytest.MonkeyPatch
) -> None:  # which_children_simple_one_for_one
    monkeypatch.setattr("daemonkit.supervision.exits.KEPT", 2)
    options: Any = {"restart": "never", "critical": False}
    with running(app) as client:
        slaves.add("fails", **options)
        app.stop_slave("fails")
        app.start_slave("fails")
        slaves.fail("fails")
        wait_for_end(client, "fails", "failed")
        for name in "abc":
            slaves.add(name, **options)
            if others == "stopped":
                app.stop_slave(name)
                continue
            slaves.fail(name)
            wait_for_end(client, name, "failed")
            app.forget_slave(name)
        assert states(app).get("fails") == "failed"
        assert client.get("/ping").text == "the slave fails has failed\n"


RUNS, STOPPED, FINISHED, FAILED = "running", "stopped", "finished", "failed"


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("kind", ["independent", "group", "bound"])
@pytest.mark.parametrize(
    ("restart", "how", "state"),
    [
        ("always", "return", RUNS),
        ("always", "done", FINISHED),
        ("always", "failure", RUNS),
        ("always", "stop", STOPPED),
        ("on-failure", "return", FINISHED),
        ("on-failure", "done", FINISHED),
        ("on-failure", "failure", RUNS),
        ("on-failure", "stop", STOPPED),
        ("never", "return", FINISHED),
        ("never", "done", FINISHED),
        ("never", "failure", FAILED),
        ("never", "stop", STOPPED),
    ],
)
def test_what_is_kept_of_a_slave_after_each_end(
    app: Daemon, slaves: Unsteady, late: bool, kind: str, restart: Any, how: str, state: str
) -> None:  # do_not_save_child_specs_for_temporary_children
    if kind == "group" and restart == "never":
        message = "a group restarts its members together: restart='never' can't be in one"
        assert refusal(linked, slaves, kind, "first", "work", restart=restart) == message
        return

    def add() -> None:
        linked(slaves, kind, "first", "work", restart=restart, critical=False)

    if not late:
        add()
    with running(app) as client:
        if late:
            add()
        slaves.wait_for("+first", "+work")
        if how == "stop":
            app.stop_slave("work")
        else:
            slaves.end("work", ENDS[how])
        if state != RUNS:
            slaves.wait_for("-work")
        elif kind == "group":
            slaves.wait_for("-work", "-first", "+first", "+work")
        else:
            slaves.wait_for("-work", "+work")
        wait_for_states(client, app, first="running", work=state)
        if state == RUNS:
            return
        if late and state == FINISHED:
            assert refusal(app.start_slave, "work") == (
                "the slave 'work' was added by run_slave and has ended; add it again"
            )
        else:
            assert app.start_slave("work")
            app.stop_slave("work")
            slaves.wait_for("+work", "-work")
        slaves.add("work", restart=restart)
        slaves.wait_for("+work")


# Order, numbers, and restarts that keep failing


@pytest.mark.parametrize("late", LATE)
def test_slaves_start_in_order_and_stop_in_reverse_in_a_restart_and_at_the_end(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:  # order_of_children
    names = ("c", "a", "e", "b", "d")
    if not late:
        chain(slaves, *names, restart="always")
    with running(app) as client:
        if late:
            chain(slaves, *names, restart="always")
        slaves.wait_for("+c", "+a", "+e", "+b", "+d")
        slaves.fail("e")
        slaves.wait_for("-e", "-d", "-b", "+e", "+b", "+d")
        wait_for_states(client, app, **dict.fromkeys(names, "running"))

    assert slaves.log == ["-d", "-b", "-e", "-a", "-c"]


@pytest.mark.parametrize("kind", ["independent", "bound", "group"])
def test_a_never_slave_is_restarted_with_what_it_is_bound_to_and_may_not_be_in_a_group(
    app: Daemon, slaves: Unsteady, kind: str
) -> None:  # temporary_bystander
    options: Any = {"restart": "never", "after": "conn", "critical": False}
    slaves.add("conn", restart="always", group="g" if kind == "group" else None)
    if kind == "group":
        assert refusal(slaves.add, "never", **options, group="g") == (
            "a group restarts its members together: restart='never' can't be in one"
        )
        return
    slaves.add("never", **options, bound=kind == "bound")
    with running(app) as client:
        slaves.wait_for("+conn", "+never")
        slaves.fail("conn")
        if kind == "bound":
            slaves.wait_for("-conn", "-never", "+conn", "+never")
        else:
            slaves.wait_for("-conn", "+conn")
        wait_for_states(client, app, conn="running", never="running")
        # Only its own end is its last one.
        slaves.fail("never")
        wait_for_states(client, app, conn="running", never="failed")
        assert not app.shutdown.is_set()


FAILING: dict[str, Any] = {"restart": "always", "max_restarts": None, "backoff": (0.001, 0.001)}


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(False, id="hanging_restart_loop"),
        pytest.param(True, id="hanging_restart_loop_simple"),
    ],
)
def test_a_slave_whose_restarts_keep_failing_can_be_stopped_started_and_added_anew(
    app: Daemon, slaves: Unsteady, late: bool
) -> None:
    if not late:
        slaves.add("work", **FAILING)
    with running(app) as client:
        if late:
            slaves.add("work", **FAILING)
        for number in range(2):
            slaves.wait_for("+work")
            slaves.broken.add("work")
            slaves.fail("work")
            slaves.wait_for_attempts("work")
            assert refusal(slaves.add, "work") == (
                "a slave named 'work' already exists; choose another by name="
            )
            refused = refusal(app.forget_slave, "work")
            assert refused in {
                f"the slave 'work' is {state}; stop it first"
                for state in ("backing off", "starting")
            }
            # OTP refuses this one, too.
            assert app.restart_slave("work", timeout=0) is False
            assert app.stop_slave("work")
            assert states(app) == {"work": "stopped"}
            slaves.log.clear()
            slaves.broken.clear()
            if number:
                app.forget_slave("work")
                slaves.add("work", **FAILING)
            else:
                assert app.start_slave("work")
        slaves.wait_for("+work")
        slaves.broken.add("work")
        slaves.fail("work")
        slaves.wait_for_attempts("work")

    # The stop of the daemon was not held up either.
    assert client.exit_status == 0


@pytest.mark.parametrize("ends", ["stop_slave", "stop"])
def test_a_slave_that_is_stopped_during_an_attempt_to_restart_it_is_not_tried_again(
    app: Daemon, ends: str
) -> None:  # hanging_restart_loop
    attempts: list[int] = []
    trying, release = threading.Event(), threading.Event()

    class Conn(Worker):
        def __init__(self) -> None:
            attempts.append(1)
            if len(attempts) == 2:
                trying.set()
                release.wait(20)
                raise OSError("no disk")

        def run(self) -> None:
            if len(attempts) == 1:
                raise OSError("no line")
            super().run()

    app.add_slave(Conn, name="conn", restart="always", backoff=(0, 0))
    with running(app) as client:
        assert trying.wait(20)
        if ends == "stop":
            app.stop()
        else:
            assert app.stop_slave("conn", timeout=0) is False
        wait_for_states(client, app, conn="stopping")
        release.set()
        if ends == "stop_slave":
            wait_for_states(client, app, conn="stopped")
            assert client.get("/ping").text == "OK\n"

    assert len(attempts) == 2
    assert client.exit_status == 0


def test_slaves_bound_to_one_whose_restarts_keep_failing_wait_and_stay_down_when_it_is_stopped(
    app: Daemon, slaves: Unsteady
) -> None:  # hanging_restart_loop_rest_for_one
    chain(slaves, "a", "b", "c", **FAILING)
    with running(app) as client:
        slaves.wait_for("+a", "+b", "+c")
        slaves.broken.add("b")
        slaves.fail("b")
        slaves.wait_for_attempts("b")
        shown = states(app)
        assert (shown["a"], shown["c"]) == ("running", "waiting")
        assert app.stop_slave("b")
        assert states(app) == {"a": "running", "b": "stopped", "c": "stopped"}
        assert refusal(app.start_slave, "c") == (
            "the slave 'c' is bound to 'b', which is stopped; start that first"
        )
        assert slaves.log[:3] == ["-b", "-c", "!b"]
        assert set(slaves.log[3:]) == {"!b"}
        slaves.log.clear()
        slaves.broken.clear()
        assert app.start_slave("b")
        slaves.wait_for("+b", "+c")
        slaves.broken.add("b")
        slaves.fail("b")
        slaves.wait_for_attempts("b")
        assert states(app)["a"] == "running"

    assert slaves.log[-1] == "-a"
    assert client.exit_status == 0


@pytest.mark.parametrize("name", ["job", "broken"])
def test_a_restart_by_name_does_not_wait_for_a_slave_that_has_ended_again(
    app: Daemon, name: str
) -> None:  # sup_start_restart_child_returns_error
    app.add_slave(lambda: None, name="job")
    app.add_slave(raise_no, name="broken", restart="never", critical=False)
    with running(app) as client:
        wait_for_states(client, app, job="finished", broken="failed")
        caller = threading.Thread(target=app.restart_slave, args=(name, 600))
        caller.start()
        client.wait_until(lambda: slave_status(client, name)["last_restarts"])
        wait_for_states(client, app, job="finished", broken="failed")
        caller.join(20)
        assert not caller.is_alive()


def work_for(count: int, restart: Any) -> tuple[float, float]:
    """Seconds of the processor's time to add so many slaves, and to stop them by name."""
    app = Daemon("app")
    names = [str(number) for number in range(count)]
    with running(app, timeout=60):
        begin = time.process_time()
        for name in names:
            app.run_slave(Worker, name=name, restart=restart)
        added = time.process_time()
        for name in names:
            app.stop_slave(name)
        return added - begin, time.process_time() - added


@pytest.mark.parametrize(
    "restart",
    [
        pytest.param("always", id="scale_start_stop_many_children"),
        pytest.param("never", id="simple_one_for_one_scale_many_temporary_children"),
    ],
)
def test_ten_times_as_many_slaves_take_about_ten_times_as_much_work(restart: Any) -> None:
    few, many = (
        [min(times) for times in zip(*(work_for(count, restart) for _ in range(3)), strict=True)]
        for count in (30, 300)
    )

    # With work that grows by the square it would be a hundred times.
    for thirty, three_hundred in zip(few, many, strict=True):
        assert three_hundred < 30 * thirty
