"""Pausing periodic slaves, and calling them besides their schedule."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError
from daemonkit.supervision.calls import Calls
from daemonkit.testing import running

from ..clock import Clock
from .slaves import slave_status

HOUR = 3600.0


def made(clock: Clock, every: float = 10) -> Calls:
    calls = Calls(every, clock)
    calls.begin_run()
    return calls


def call(calls: Calls, clock: Clock, seconds: float = 0) -> None:
    calls.begin_call()
    clock.now += seconds
    calls.end_call(succeeded=True)


def test_what_is_asked_for_during_a_call_is_one_call_after_it() -> None:
    calls = made(clock := Clock())
    calls.begin_call()
    asked = [calls.request(), calls.request()]
    calls.end_call(succeeded=True)
    delay = calls.delay()
    call(calls, clock)

    assert (asked, delay, calls.delay() > 0, calls.request()) == ([False] * 2, 0, True, True)


def test_the_first_call_is_due_at_once_and_the_next_one_period_later() -> None:
    calls = made(clock := Clock())
    first = calls.delay()
    call(calls, clock, 3)

    assert (first, calls.delay()) == (0, 7)


def test_a_call_besides_the_schedule_doesn_t_change_it() -> None:
    calls = made(clock := Clock())
    call(calls, clock)
    clock.now += 4
    calls.request()
    asked = calls.delay()
    call(calls, clock)

    assert (asked, calls.delay()) == (0, 6)


def test_while_paused_only_calls_that_are_asked_for_are_due() -> None:
    calls = made(clock := Clock())
    calls.pause("me")
    before = calls.delay()
    calls.request()
    asked = calls.delay()
    call(calls, clock)

    assert (before, asked, calls.delay()) == (float("inf"), 0, float("inf"))


def test_calls_missed_during_a_pause_are_not_made_up_for() -> None:
    calls = made(clock := Clock())
    call(calls, clock)
    calls.pause("me")
    clock.now += 34
    calls.resume()

    assert calls.delay() == 6


def test_a_pause_and_its_end_take_effect_once() -> None:
    calls = made(Clock())

    assert (calls.resume(), calls.pause("a"), calls.pause("b"), calls.resume()) == (
        False,
        True,
        False,
        True,
    )


def test_a_slave_that_is_being_called_shows_when_the_call_after_it_is_due() -> None:
    calls = made(clock := Clock())
    calls.begin_call()
    clock.now += 4

    assert calls.shown(is_running=True)["next_call_in"] == 6


KINDS = ["function", "async"]


def app_with(kind: str, every: float, log: list[str]) -> Daemon:
    app = Daemon("app")

    def sweep() -> None:
        log.append("call")

    async def sweep_async() -> None:
        await asyncio.sleep(0)
        log.append("call")

    app.add_slave(sweep if kind == "function" else sweep_async, name="sweep", every=every)
    return app


def by_name(app: Daemon) -> Any:
    assert app._supervisor is not None
    return app._supervisor.by_name


@pytest.mark.parametrize("kind", KINDS)
def test_run_now_calls_a_waiting_slave_once(kind: str) -> None:
    calls: list[str] = []
    app = app_with(kind, HOUR, calls)
    with running(app) as client:
        client.wait_until(lambda: slave_status(client, "sweep")["last_success"])
        for count in (2, 3):
            by_name(app).run_now("sweep")
            client.wait_until(lambda count=count: len(calls) == count)
        status = slave_status(client, "sweep")

    assert len(calls) == 3
    assert 0 < status["next_call_in"] <= HOUR


@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_slave_is_called_no_more_until_it_is_resumed(kind: str) -> None:
    calls: list[str] = []
    app = app_with(kind, 0.01, calls)
    with running(app) as client:
        client.wait_until(lambda: len(calls) > 2)
        by_name(app).pause("sweep", "me")
        # One call may have begun already.
        client.wait_until(lambda: slave_status(client, "sweep")["next_call_in"] is None)
        by_name(app).run_now("sweep")
        count = len(calls)
        client.wait_until(lambda: len(calls) > count)
        is_paused = slave_status(client, "sweep")["paused"]
        count = len(calls)
        by_name(app).resume("sweep")
        client.wait_until(lambda: len(calls) > count + 2)

    assert is_paused is True


@pytest.mark.parametrize("kind", KINDS)
def test_a_paused_slave_stops_at_once(kind: str) -> None:
    calls: list[str] = []
    app = app_with(kind, HOUR, calls)
    with running(app) as client:
        client.wait_until(lambda: calls)
        by_name(app).pause("sweep", "me")
        client.wait_until(lambda: slave_status(client, "sweep")["next_call_in"] is None)

    assert client.exit_status == 0


def test_a_slave_that_sets_its_own_shutdown_during_a_wait_ends() -> None:
    app = Daemon("app")
    made: list[Any] = []
    app.add_slave(lambda slave: made.append(slave), name="sweep", every=HOUR)
    with running(app) as client:
        client.wait_until(lambda: slave_status(client, "sweep")["last_success"])
        threading.Thread(target=made[0].shutdown.set).start()
        client.wait_until(lambda: slave_status(client, "sweep")["state"] == "finished")


def test_a_pause_outlasts_a_restart() -> None:
    calls: list[str] = []
    app = app_with("function", HOUR, calls)
    with running(app) as client:
        client.wait_until(lambda: calls)
        by_name(app).pause("sweep", "me")
        assert app.restart_slave("sweep")
        client.wait_until(lambda: slave_status(client, "sweep")["state"] == "running")

        assert slave_status(client, "sweep")["next_call_in"] is None
    assert len(calls) == 1


@pytest.mark.parametrize("what", ["pause", "resume", "run_now"])
def test_a_slave_that_isn_t_periodic_is_refused(what: str) -> None:
    app = Daemon("app")
    app.add_slave(lambda slave: slave.shutdown.wait(), name="work")
    with running(app), pytest.raises(RegistrationError, match=r"'work' isn't called periodically"):
        getattr(by_name(app), what)("work", *(["me"] if what == "pause" else []))


def test_run_now_is_refused_for_a_slave_that_doesn_t_run() -> None:
    app = app_with("function", HOUR, [])
    with running(app):
        app.stop_slave("sweep")

        with pytest.raises(RegistrationError, match="'sweep' is stopped"):
            by_name(app).run_now("sweep")


def test_a_wait_ends_when_it_is_woken_and_not_before() -> None:
    calls, ended = Calls(10), threading.Event()
    thread = threading.Thread(target=lambda: (calls.sleep(HOUR), ended.set()))
    thread.start()
    assert not ended.wait(0.05)
    calls.wake()

    assert ended.wait(10)


def test_the_first_call_of_a_new_run_is_due_at_once() -> None:
    calls = made(clock := Clock())
    call(calls, clock)
    calls.begin_run()

    assert calls.delay() == 0


def test_a_run_that_was_cancelled_in_a_call_leaves_nothing_behind() -> None:
    calls = made(clock := Clock())
    calls.begin_call()
    calls.begin_run()
    clock.now += 4
    calls.resume()

    assert calls.shown(is_running=True)["next_call_in"] == 6
