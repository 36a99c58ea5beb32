from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave, StartError
from daemonkit.callables import (
    accepts,
    check_options,
    function_name,
    is_async,
    refuse_unrun,
    require_function,
)
from daemonkit.testing import Client, running

# Unrun work


def generator(*arguments: Any) -> Iterator[None]:
    yield pytest.fail("it ran")


async def async_generator(*arguments: Any) -> Any:
    yield pytest.fail("it ran")


async def coroutine(*arguments: Any) -> None:
    pytest.fail("it ran")


class Later:
    def __init__(self, *arguments: Any) -> None: ...

    def __await__(self) -> Any:
        pytest.fail("it ran")


KINDS = [
    (generator, "a generator, which nothing iterates over"),
    (async_generator, "an async generator, which nothing iterates over"),
    (coroutine, "a coroutine, which nothing awaits"),
    (Later, "an awaitable, which nothing awaits"),
]


@pytest.mark.parametrize(("kind", "what"), [*KINDS, (types.coroutine(generator), KINDS[0][1])])
def test_unrun_work_is_refused(kind: Callable[[], Any], what: str) -> None:
    with pytest.raises(TypeError) as raised:
        refuse_unrun(kind())

    assert str(raised.value) == f"it returned {what}: do the work before returning"


def test_a_task_is_refused_and_continues() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0.001, "done"))
        with pytest.raises(TypeError, match="an awaitable"):
            refuse_unrun(task)
        assert await task == "done"

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", [None, 0, "", [generator], {}, range(3), iter([1]), concurrent.futures.Future(), Later]
)
def test_other_results_are_left_alone(value: Any) -> None:
    assert refuse_unrun(value) is value


class Case:
    """A function of one kind, behind a decorator that hides it, and the error that it causes."""

    def __init__(self, kind: Callable[..., Any], what: str) -> None:
        @functools.wraps(kind, updated=[])
        def hidden(*arguments: Any) -> Any:
            return kind(*arguments)

        self.function = hidden
        self.error = f"it returned {what}: do the work before returning"
        self.app = Daemon("app")

    def subclass(self, method: str) -> Daemon:
        """A daemon that overrides `method` with the function."""
        return type("Own", (Daemon,), {method: self.function})("app")

    def calling_super(self, method: str, result: Any = None) -> Daemon:
        """A daemon whose override of `method` calls what was registered, and drops its result."""

        def override(daemon: Daemon, *arguments: Any) -> Any:
            getattr(Daemon, method)(daemon, *arguments)
            return result

        return type("Own", (Daemon,), {method: override})("app")


@pytest.fixture(params=KINDS, ids=lambda kind: kind[0].__name__)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(*request.param)


@pytest.mark.parametrize("place", ["handler", "batch", "override", "below an override"])
def test_an_event_whose_handler_returns_unrun_work_has_failed(
    case: Case, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "override":
        app = case.subclass("process_event")
    else:
        app = case.calling_super("process_event") if place == "below an override" else case.app
        app.on_event(batch=5 if place == "batch" else None)(case.function)
    with running(app) as client:
        client.send_event(1)
        events = client.wait_until(lambda: (shown := client.status()["events"])["dead"] and shown)

    assert (events["handled"], events["failed"], events["dead"]) == (0, 1, 1)
    assert events["dead_letters"][0]["error"] == "TypeError"
    assert caplog.text.count(case.error) == 1


def test_a_start_hook_that_returns_unrun_work_fails_the_start(case: Case) -> None:
    case.app.on_start(case.function)

    with pytest.raises(StartError, match=rf"^the start hook \w+ failed: TypeError: {case.error}$"):
        running(case.app).__enter__()


def test_other_hooks_that_return_unrun_work_have_failed(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    case.app.on_reload(case.function)
    case.app.on_stop(case.function)
    with running(case.app, {}) as client:
        case.app._reloader.reload()

    name = case.function.__name__
    assert f"The reload hook {name} failed" in caplog.messages
    assert "Reloaded, but 1 reload hooks failed" in caplog.messages
    assert f"The stop hook {name} failed" in caplog.messages
    assert caplog.text.count(case.error) == 2
    assert client.exit_status == 0


@pytest.mark.parametrize("place", ["main", "override", "below an override"])
def test_a_run_that_returns_unrun_work_ends_the_daemon_with_1(
    case: Case, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "override":
        app = case.subclass("run")
    else:
        app = case.calling_super("run") if place == "below an override" else case.app
        app.main(case.function)
    with running(app) as client:
        assert app.shutdown.wait(10)

    assert client.exit_status == 1
    assert "run() failed" in caplog.messages
    assert caplog.text.count(case.error) == 1


@pytest.mark.parametrize("place", ["on_ping", "override", "below an override"])
def test_a_health_check_that_returns_unrun_work_has_failed(
    case: Case, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    if place == "override":
        app = case.subclass("ping")
    else:
        app = case.calling_super("ping", "OK\n") if place == "below an override" else case.app
        app.on_ping(case.function)
    with running(app) as client:
        answer = client.get("/ping")

    assert (answer.status_code, answer.text) == (500, "The health check failed\n")
    assert "The health check failed" in caplog.messages
    assert caplog.text.count(case.error) == 1


def test_a_status_that_returns_unrun_work_is_an_error_in_its_place(case: Case) -> None:
    app, error = case.subclass("status"), f"TypeError: {case.error}"
    app.add_status_field(case.function, name="field")
    app.add_slave(type("Odd", (Slave,), {"run": wait_for_shutdown, "status": case.function}))
    with running(app) as client:
        client.wait_until(lambda: client.status()["slaves"][0]["state"] == "running")
        shown = client.status()

    assert (shown["name"], shown["error"]) == ("app", error)
    assert shown["field"] == {"error": error}
    assert (shown["slaves"][0]["name"], shown["slaves"][0]["error"]) == ("Odd", error)


def wait_for_shutdown(slave: Slave) -> None:
    slave.shutdown.wait()


@pytest.mark.parametrize("every", [None, 60])
@pytest.mark.parametrize("place", ["function", "class", "async"])
def test_a_slave_that_returns_unrun_work_has_failed(
    case: Case, place: str, every: float | None
) -> None:
    async def awaits() -> Any:
        return case.function()

    own = type("Own", (Slave,), {"run": case.function})
    target: Any = {"function": case.function, "class": own, "async": awaits}[place]
    case.app.add_slave(target, name="work", every=every, backoff=(60, 60))

    def failed(client: Client) -> Any:
        (shown,) = client.status()["slaves"]
        return shown if shown["state"] == "backing off" else None

    with running(case.app) as client:
        shown = client.wait_until(lambda: failed(client))

    assert shown["last_error"]["error"] == f"TypeError: {case.error}"


# A function's parameters


def named() -> None: ...


class Call:
    def __call__(self, event: Any) -> None: ...


class AsyncCallable:
    async def __call__(self) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (named, "named"),
        (functools.partial(named), "named"),
        (Call(), "Call"),
        (Call().__call__, "__call__"),
    ],
)
def test_every_callable_has_a_name(function: Any, name: str) -> None:
    assert function_name(function) == name


EVENT, BOTH = ("event",), ("event", "meta")


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda event: None, 1),
        (lambda anything: None, 1),
        (lambda event, meta: None, 2),
        (lambda a, b: None, 2),
        (lambda event, meta=None: None, 2),
        (lambda event, verbose=True: None, 1),
        (lambda *events: None, 1),
        (Call(), 1),
        (functools.partial(lambda setting, event: None, 1), 1),
        (print, 1),
        (dict.update, 1),
    ],
)
def test_an_optional_argument_is_passed_only_to_a_function_that_takes_it(
    function: Any, count: int
) -> None:
    assert accepts(function, "on_event", EVENT, BOTH) == count


def test_no_argument_is_passed_to_a_function_that_needs_none() -> None:
    assert accepts(named, "slave", (), ("slave",)) == 0
    assert accepts(lambda slave: None, "slave", (), ("slave",)) == 1
    assert accepts(lambda option=1: None, "slave", (), ("slave",)) == 0


def test_a_function_of_another_form_is_refused_with_the_forms() -> None:
    with pytest.raises(RegistrationError) as raised:
        accepts(lambda a, b, c: None, "on_event", EVENT, BOTH)

    assert str(raised.value) == (
        "on_event takes a function that can be called with (event) or (event, meta), "
        "not <lambda>(a, b, c)"
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (5, "main takes a function, not 5 (int); options are given by name"),
        (generator, "main takes a plain function, and generator() is a generator: "),
        (async_generator, "main takes a plain function, and async_generator() is a generator: "),
        (coroutine, "main takes a plain function, and coroutine() is async def: "),
        (AsyncCallable(), "main takes a plain function, and AsyncCallable() is async def: "),
    ],
)
def test_functions_that_would_run_nothing_are_refused(function: Any, message: str) -> None:
    with pytest.raises(RegistrationError, match=f"^{re.escape(message)}"):
        require_function(function, "main")


def test_a_slave_may_be_async() -> None:
    require_function(AsyncCallable(), "slave", may_be_async=True)
    require_function(named, "main")

    assert (is_async(AsyncCallable()), is_async(coroutine), is_async(named)) == (True, True, False)


def test_an_unknown_option_is_refused_with_the_nearest_or_all_known() -> None:
    check_options(["b"], ["backoff", "b"], "slave")

    with pytest.raises(RegistrationError, match="'backof'; did you mean 'backoff'"):
        check_options(["backof"], ["name", "backoff"], "slave")
    with pytest.raises(RegistrationError, match="no option 'x'; the options are backoff, name$"):
        check_options(["x"], ["name", "backoff"], "slave")
