from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemonkit import Daemon, Slave, StartError
from daemonkit.callables import refuse_unrun
from daemonkit.testing import Client, running
from daemonkit.text import LONGEST_TEXT, error_text, plain, traceback_text

# Work that a function returns undone


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
def test_undone_work_is_refused(kind: Callable[[], Any], what: str) -> None:
    with pytest.raises(TypeError) as raised:
        refuse_unrun(kind())

    assert str(raised.value) == f"it returned {what}: do the work before returning"


def test_a_task_is_refused_and_goes_on() -> None:
    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0.001, "done"))
        with pytest.raises(TypeError, match="an awaitable"):
            refuse_unrun(task)
        assert await task == "done"

    asyncio.run(main())


@pytest.mark.parametrize(
    "value", [None, 0, "", [generator], {}, range(3), iter([1]), concurrent.futures.Future(), Later]
)
def test_whatever_else_is_returned_is_left_alone(value: Any) -> None:
    assert refuse_unrun(value) is value


class Case:
    """A function of one kind, behind a decorator that hides it, and the error that it makes."""

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
def test_an_event_whose_handling_is_returned_undone_has_failed(
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
    assert events["dead_letters"][0]["error"] == f"TypeError: {case.error}"
    assert caplog.text.count(case.error) == 1


def test_a_start_hook_that_returns_its_work_undone_ends_the_start(case: Case) -> None:
    case.app.on_start(case.function)

    with pytest.raises(StartError, match=rf"^the start hook \w+ failed: TypeError: {case.error}$"):
        running(case.app).__enter__()


def test_other_hooks_that_return_their_work_undone_have_failed(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    case.app.on_reload(case.function)
    case.app.on_stop(case.function)
    with running(case.app, {}) as client:
        case.app._reload()

    name = case.function.__name__
    assert f"The reload hook {name} failed" in caplog.messages
    assert "Reloaded, but 1 reload hooks failed" in caplog.messages
    assert f"The stop hook {name} failed" in caplog.messages
    assert caplog.text.count(case.error) == 2
    assert client.exit_status == 0


@pytest.mark.parametrize("place", ["main", "override", "below an override"])
def test_a_run_that_returns_its_work_undone_ends_the_daemon_with_1(
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
def test_a_health_check_that_returns_its_work_undone_has_failed(
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


def test_a_status_that_is_returned_undone_is_an_error_in_its_place(case: Case) -> None:
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
def test_a_slave_that_returns_its_work_undone_has_failed(
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


# Texts


class Text(str):
    def encode(self, *_: Any) -> bytes:
        raise ValueError


class Wrong(Exception):
    def __init__(self, text: Any) -> None:
        self.text = text

    def __str__(self) -> str:
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é\n", "é\n"),
        ("a \ud800", "a \\ud800"),
        (Text("a \udfff"), "a \\udfff"),
    ],
    ids=["none", "surrogate", "subclass"],
)
def test_a_plain_text_can_be_encoded_and_is_a_str(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert type(plain(text)) is str


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Wrong"),
        (Text("a \ud800"), "Wrong: a \\ud800"),
        (7, "Wrong: (its __str__ raises TypeError)"),
        (SystemExit(), "Wrong: (its __str__ raises SystemExit)"),
        ("x" * 9000, "Wrong: ".ljust(LONGEST_TEXT, "x")),
    ],
    ids=["empty", "surrogate", "no str", "raises", "long"],
)
def test_the_text_of_any_error_is_plain_and_short(text: Any, expected: str) -> None:
    found = error_text(Wrong(text))

    assert found == expected
    assert type(found) is str


class Noted(Exception):
    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise ValueError


def test_a_traceback_is_plain_keeps_its_end_and_may_be_beyond_formatting() -> None:
    error = ValueError("x" * 9000 + "\ud800")
    text = traceback_text(error, str)

    assert text == "x" * (LONGEST_TEXT - len("\\ud800\n")) + "\\ud800\n"
    assert traceback_text(Noted(), str) == "(formatting the traceback raises ValueError)\n"


def test_what_is_cut_was_redacted_before() -> None:
    error = ValueError("x" * (LONGEST_TEXT - len("ValueError: ") - 1) + "secret")

    def redact(text: str) -> str:
        return text.replace("secret", "***")

    assert error_text(error, redact).endswith("x*")
    assert "secret"[-3:] not in traceback_text(error, redact)
