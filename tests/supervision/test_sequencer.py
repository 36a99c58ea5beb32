from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from daemonkit import Daemon, Done, Slave
from daemonkit.testing import running

from .slaves import Recorded, slave_status, states, wait_for_state


def test_a_bound_slave_is_stopped_and_started_again_after_the_one_it_is_bound_to(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True, max_restarts=0)
    slaves.add("later", after="sub")

    with running(app) as client:
        slaves.wait_for("+conn", "+sub", "+later")
        for restarts in (1, 2):
            slaves.fail("conn")
            slaves.wait_for("-conn", "-sub", "+conn", "+sub")
            wait_for_state(client, "sub", "running")
            assert slave_status(client, "conn")["restarts"] == restarts
        shown = slave_status(client, "sub")

    assert (shown["restarts"], shown["last_error"]) == (0, None)
    assert [restart["reason"] for restart in shown["last_restarts"]] == ["conn failed"] * 2
    assert client.exit_status == 0


def test_bound_slaves_stop_in_reverse_order_before_anything_is_started_again(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("a")
    slaves.add("b", after="a", bound=True)
    slaves.add("c", after="b", bound=True)
    slaves.add("d", after=("a", "c"), bound=True)
    released = slaves.hold("c")

    with running(app):
        slaves.wait_for("+a", "+b", "+c", "+d")
        slaves.fail("a")
        slaves.wait_for("-a", "-d")
        released.set()
        slaves.wait_for("-c", "-b", "+a", "+b", "+c", "+d")
        slaves.fail("c")
        slaves.wait_for("-c", "-d", "+c", "+d")


def test_a_bound_slave_stops_for_good_with_the_one_it_is_bound_to(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True)
    slaves.add("subsub", after="sub", bound=True)

    with running(app) as client:
        slaves.wait_for("+conn", "+sub", "+subsub")
        slaves.end("conn")
        slaves.wait_for("-conn", "-subsub", "-sub")
        wait_for_state(client, "sub", "stopped")
        assert states(client) == {"conn": "finished", "sub": "stopped", "subsub": "stopped"}
        assert client.get("/ping").text == "OK\n"
        assert app.start_slave("conn")
        slaves.wait_for("+conn", "+sub", "+subsub")


def test_a_bound_slave_waits_for_one_that_could_not_be_created(
    app: Daemon, slaves: Recorded
) -> None:
    errors = [OSError("no"), OSError("no")]

    class Conn(Slave):
        def __init__(self) -> None:
            slaves.log.append("conn is made")
            if errors:
                raise errors.pop()

        def run(self) -> None:
            self.shutdown.wait()

    app.add_slave(Conn, name="conn", backoff=(0.05, 0.05))
    slaves.add("sub", after="conn", bound=True)
    with running(app):
        slaves.wait_for("conn is made", "conn is made", "conn is made", "+sub")


def test_a_bound_job_that_has_returned_runs_again_and_one_that_is_done_does_not(
    app: Daemon, slaves: Recorded
) -> None:
    def done() -> None:
        slaves.log.append("done")
        raise Done

    slaves.add("conn")
    app.add_slave(lambda: slaves.log.append("set up"), name="setup", after="conn", bound=True)
    app.add_slave(done, after="conn", bound=True)
    with running(app) as client:
        client.wait_until(lambda: sorted(slaves.log) == ["+conn", "done", "set up"])
        slaves.log.clear()
        wait_for_state(client, "setup", "finished")
        wait_for_state(client, "done", "finished")
        slaves.fail("conn")
        slaves.wait_for("-conn", "+conn", "set up")


def test_a_failure_in_a_group_restarts_all_its_members_and_counts_once(
    app: Daemon, slaves: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for name, after in (("a", ()), ("b", "a"), ("c", "b")):
        slaves.add(name, after=after, group="link", max_restarts=3)
    slaves.add("other", after="c")

    with running(app) as client:
        slaves.wait_for("+a", "+b", "+c", "+other")
        for failing, stops in (("a", ("-c", "-b")), ("b", ("-c", "-a")), ("c", ("-b", "-a"))):
            slaves.fail(failing)
            slaves.wait_for(f"-{failing}", *stops, "+a", "+b", "+c")
        shown = [slave_status(client, name) for name in "abc"]
        slaves.fail("b")
        assert app.shutdown.wait(10)

    assert [slave["restarts"] for slave in shown] == [3, 3, 3]
    assert [slave["group"] for slave in shown] == ["link"] * 3
    assert "Stopping: the slave b gave up" in caplog.messages
    assert "Stopping b, c: a failed" in caplog.messages
    assert client.exit_status == 1


def test_a_group_that_has_failed_for_good_stays_down_until_it_is_started(
    app: Daemon, slaves: Recorded
) -> None:
    for name in "ab":
        slaves.add(name, group="link", max_restarts=0, critical=False)
    with running(app) as client:
        client.wait_until(lambda: sorted(slaves.log) == ["+a", "+b"])
        slaves.log.clear()
        slaves.fail("a")
        slaves.wait_for("-a", "-b")
        wait_for_state(client, "b", "stopped")
        assert client.get("/ping").text == "the slave a has failed\n"
        assert app.start_slave("a")
        client.wait_until(lambda: sorted(slaves.log) == ["+a", "+b"])
        assert client.get("/ping").text == "OK\n"


def test_no_member_of_a_group_starts_before_all_have_ended(app: Daemon, slaves: Recorded) -> None:
    released = slaves.hold("b")
    slaves.add("a", group="link")
    slaves.add("b", group="link", after="a")
    with running(app) as client:
        slaves.wait_for("+a", "+b")
        slaves.fail("a")
        slaves.wait_for("-a")
        wait_for_state(client, "b", "stopping")
        assert slave_status(client, "a")["state"] == "backing off"
        released.set()
        slaves.wait_for("-b", "+a", "+b")


def test_the_order_of_stopping_is_kept_up_to_the_deadline(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    order: list[str] = []
    begun: list[float] = []

    def slow(slave: Slave) -> None:
        slave.shutdown.wait()
        begun.append(time.monotonic())
        threading.Event().wait(1)
        order.append("slow")

    def first(slave: Slave) -> None:
        slave.shutdown.wait()
        order.append("a")

    app.add_slave(first, name="a")
    app.add_slave(slow, name="slow", after="a")
    with running(app, {"master": {"shutdown_timeout": 2.5}}) as client:
        wait_for_state(client, "slow", "running")

    assert order == ["slow", "a"]
    assert client.exit_status == 0
    assert "has not stopped in time" not in caplog.text


def test_a_slave_that_is_asked_to_stop_before_its_turn_is_named_with_the_one_it_waited_for(
    app: Daemon, slaves: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    slaves.add("a")
    slaves.add("b")
    slaves.add("slow", after=["a", "b"])
    released = slaves.hold("slow")
    with running(app, {"master": {"shutdown_timeout": 1}}) as client:
        wait_for_state(client, "slow", "running")
    released.set()

    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"][-1:] == [
        "The slave slow has not stopped in time; no longer waiting for it: a, b"
    ]
    assert client.exit_status == 4


def test_a_slave_with_a_stop_timeout_is_not_waited_for_any_longer(
    app: Daemon, slaves: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    slaves.add("hangs", stop_timeout=0.2)
    released = slaves.hold("hangs")
    begin = time.monotonic()
    with running(app, {"master": {"shutdown_timeout": 600}}) as client:
        wait_for_state(client, "hangs", "running")
        begin = time.monotonic()
    took = time.monotonic() - begin
    released.set()

    assert took < 300
    assert client.exit_status == 4
    assert "The thread hangs (slaves) did not stop in time" in caplog.text


def test_a_slave_that_does_not_stop_for_a_restart_is_a_problem_and_delays_the_restart(
    app: Daemon, slaves: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    slaves.add("conn")
    slaves.add("sub", after="conn", bound=True, stop_timeout=0.1)
    released = slaves.hold("sub")
    with running(app) as client:
        slaves.wait_for("+conn", "+sub")
        slaves.fail("conn")
        client.wait_until(lambda: "the slave sub does not stop" in client.get("/ping").text)
        slaves.wait_for("-conn")
        released.set()
        slaves.wait_for("-sub", "+conn", "+sub")
        assert client.get("/ping").text == "OK\n"

    (report,) = [m for m in caplog.messages if m.startswith("The slave sub has not stopped")]
    assert ".wait(20)" in report


def seconds(count: int, **options: Any) -> tuple[float, float, float]:
    """How long so many slaves take to start, to be restarted and to stop."""
    app = Daemon("app")
    runs: list[str] = []

    def work(slave: Slave) -> None:
        runs.append(slave.name)
        slave.shutdown.wait()

    for number in range(count):
        app.add_slave(work, name=str(number), backoff=(0, 0), **options)
    begin = time.monotonic()
    with running(app, timeout=60) as client:
        client.wait_until(lambda: len(runs) == count)
        started = time.monotonic()
        if options:
            app.restart_slave("0", 60)
            client.wait_until(lambda: len(runs) == 2 * count)
        restarted = time.monotonic()
    return started - begin, restarted - started, time.monotonic() - restarted


def test_a_thousand_slaves_take_about_ten_times_as_long_as_a_hundred() -> None:
    few = [min(times) for times in zip(*(seconds(100, group="g") for _ in range(3)), strict=True)]
    many = seconds(1000, group="g")

    # With work that grows by the square it would be a hundred times.
    for hundred, thousand in zip(few, many, strict=True):
        assert thousand < 50 * hundred + 1


def test_a_member_that_is_bound_to_another_one_backs_off_as_a_failed_one(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("a", group="g", backoff=3600)
    slaves.add("b", group="g", after="a", bound=True, backoff=3600)
    with running(app) as client:
        slaves.wait_for("+a", "+b")
        slaves.fail("b")
        slaves.wait_for("-b", "-a")
        wait_for_state(client, "a", "waiting")
        shown = slave_status(client, "b")
        ping = client.get("/ping").text
        assert app.restart_slave("a")
        slaves.wait_for("+a", "+b")

    assert (shown["state"], ping) == ("backing off", "the slave b is backing off\n")
    assert shown["next_restart_in"] > 1000


def test_a_restart_keeps_the_order_when_one_waits_for_what_it_owns(
    app: Daemon, slaves: Recorded
) -> None:
    app.add_slave(slaves.parent("a", "child"), name="a", group="g", backoff=(0, 0))
    slaves.add("b", after="a", group="g")
    released = slaves.hold("child")
    with running(app) as client:
        client.wait_until(lambda: sorted(slaves.log) == ["+a", "+b", "+child"])
        slaves.log.clear()
        slaves.fail("b")
        slaves.wait_for("-b", "-a")
        released.set()
        client.wait_until(lambda: "+b" in slaves.log)

    assert slaves.log[0] == "-child"
    assert [entry for entry in slaves.log if entry in ("+a", "+b")] == ["+a", "+b"]


def test_a_slave_that_is_bound_to_two_stays_stopped_as_long_as_one_is_out(
    app: Daemon, slaves: Recorded
) -> None:
    slaves.add("a")
    slaves.add("b")
    slaves.add("sub", after=["a", "b"], bound=True)
    slaves.add("subsub", after="sub", bound=True)
    with running(app) as client:
        client.wait_until(lambda: len(slaves.log) == 4)
        slaves.end("a")
        wait_for_state(client, "sub", "stopped")
        wait_for_state(client, "subsub", "stopped")
        slaves.log.clear()
        slaves.fail("b")
        slaves.wait_for("-b", "+b")
        wait_for_state(client, "b", "running")
        assert states(client) == {
            "a": "finished",
            "b": "running",
            "sub": "stopped",
            "subsub": "stopped",
        }
