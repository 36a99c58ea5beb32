from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError, Slave
from daemonkit.monitoring.status import STATUS_KEYS
from daemonkit.testing import running


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


class Worker(Slave):
    def run(self) -> None:
        self.shutdown.wait()


def one(argument: Any) -> None: ...


def none() -> int:
    return 42


async def coroutine() -> None: ...


def generator(event: Any) -> Any:
    yield event


async def async_generator() -> Any:
    yield 1


class AsyncCall:
    async def __call__(self) -> None: ...


class Demanding(Worker):
    def __init__(self, url: str) -> None: ...


@pytest.mark.parametrize(
    ("registrar", "function"),
    [
        ("slave", none),
        ("slave", one),
        ("slave", coroutine),
        ("slave", Worker),
        ("on_event", one),
        ("status_field", none),
        ("on_ping", none),
        ("main", none),
        ("on_start", none),
        ("on_stop", none),
        ("on_reload", none),
    ],
)
def test_a_registrar_works_bare_and_called_and_returns_the_function(
    registrar: str, function: Any
) -> None:
    assert getattr(Daemon("a"), registrar)(function) is function
    assert getattr(Daemon("b"), registrar)()(function) is function


def test_a_route_returns_the_function(app: Daemon) -> None:
    assert app.route("/x")(none) is none


def test_each_registrar_has_an_imperative_twin(app: Daemon) -> None:
    app.add_slave(Worker, name="w", every=5)
    app.add_event_handler(one, threads=2)
    app.add_status_field(none, name="answer")
    app.add_ping_check(none)
    app.add_main(none)
    app.add_start_hook(none)
    app.add_stop_hook(none)
    app.add_reload_hook(none)
    app.add_url_rule("/x", view_func=none)
    registry = app._registry

    assert [(spec.name, spec.cls, spec.every) for spec in registry.slaves] == [("w", Worker, 5)]
    assert registry.handler is not None
    assert (registry.handler.function, registry.handler.threads) == (one, 2)
    assert registry.status_fields == {"answer": none}
    assert (registry.ping, registry.main) == (none, none)
    hooks = app._hooks
    assert [hooks.start, hooks.stop, hooks.reload] == [[none]] * 3
    assert app._endpoints == {"none": none}


ASYNC = "takes a plain function, and coroutine() is async def: nothing would await it; only a slave may be async"
TWICE = {
    "slave": "a slave named 'none' is already registered; choose another by name=",
    "status_field": "a status field named 'none' is already registered; choose another by name=",
    "on_ping": "the health check is already none(); a daemon has one, so call both from one function",
    "main": "the main function is already none(); a daemon has one, so call both from one function",
    "on_start": "none() is already an on_start hook; register it once",
    "on_stop": "none() is already an on_stop hook; register it once",
    "on_reload": "none() is already an on_reload hook; register it once",
}


@pytest.mark.parametrize("registrar", [*TWICE, "on_event"])
def test_a_target_that_is_not_callable_is_refused_at_once(app: Daemon, registrar: str) -> None:
    with pytest.raises(RegistrationError) as caught:
        getattr(app, registrar)("name")

    assert str(caught.value) == (
        f"{registrar} takes a function, not 'name' (str); options are given by name"
    )


@pytest.mark.parametrize("registrar", [*TWICE, "on_event"])
def test_async_is_refused_where_nothing_would_await_it(app: Daemon, registrar: str) -> None:
    if registrar == "slave":
        return app.add_slave(coroutine)
    with pytest.raises(RegistrationError) as caught:
        getattr(app, registrar)(coroutine)

    assert str(caught.value) == f"{registrar} {ASYNC}"
    return None


@pytest.mark.parametrize(("registrar", "message"), TWICE.items())
def test_a_second_registration_under_one_name_is_refused(
    app: Daemon, registrar: str, message: str
) -> None:
    getattr(app, registrar)(none)
    with pytest.raises(RegistrationError) as caught:
        getattr(app, registrar)(none)

    assert str(caught.value) == message


def test_a_second_handler_and_a_second_route_are_refused(app: Daemon) -> None:
    app.on_event(one)
    app.route("/a")(none)

    with pytest.raises(RegistrationError, match=r"^the event handler is already one\(\)"):
        app.on_event(lambda event: None)
    with pytest.raises(RegistrationError, match="^a route named 'none' is already registered"):
        app.route("/b", endpoint="none")(one)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda app: app.on_event(none), "on_event takes a function that can be called with (event) or (event, meta), not none() -> 'int'"),
        (lambda app: app.on_ping(one), "on_ping takes a function that can be called with (), not one(argument: 'Any') -> 'None'"),
        (lambda app: app.status_field(one), "status_field takes a function that can be called with (), not one(argument: 'Any') -> 'None'"),
        (lambda app: app.slave(lambda a, b: None), "slave takes a function that can be called with () or (slave), not <lambda>(a, b)"),
        (lambda app: app.slave(int), "slave takes a function or a Slave subclass, not the class int"),
        (lambda app: app.slave(type("Lazy", (Slave,), {})), "the slave Lazy must override run()"),
        (lambda app: app.slave(every=0)(none), "every must be a number of seconds > 0, not 0 (int)"),
        (lambda app: app.slave(every=True)(none), "every must be a number of seconds > 0, not True (bool)"),
        (lambda app: app.slave(every="5")(none), "every must be a number of seconds > 0, not '5' (str)"),
        (lambda app: app.slave(timeout=0)(none), "timeout must be a number of seconds > 0, not 0 (int)"),
        (lambda app: app.slave(timeout=float("nan"))(none), "timeout must be a number of seconds > 0, not nan (float)"),
        (lambda app: app.slave(restart="no")(none), "restart must be 'on-failure', 'always' or 'never', not 'no' (str)"),
        (lambda app: app.slave(backoff="5")(none), "backoff must be a number of seconds, or the first and the longest wait, as in (1, 60), not '5' (str)"),
        (lambda app: app.slave(backoff=(5, 1))(none), "backoff must be a number of seconds, or the first and the longest wait, as in (1, 60), not (5, 1) (tuple)"),
        (lambda app: app.slave(max_restarts=-2)(none), "max_restarts must be an int >= 0, or None, not -2 (int)"),
        (lambda app: app.slave(max_restarts=True)(none), "max_restarts must be an int >= 0, or None, not True (bool)"),
        (lambda app: app.slave(within=0)(none), "within must be a number of seconds > 0, not 0 (int)"),
        (lambda app: app.slave(critical=0)(none), "critical must be True or False, not 0 (int)"),
        (lambda app: app.slave(after=5)(none), "after must be a slave's name, or a list of names, not 5 (int)"),
        (lambda app: app.slave(after=[none])(none), "after must be a slave's name, or a list of names, not [<function none"),
        (lambda app: app.run_slave(Demanding, "u", backof=(1, 2)), "run_slave has no option 'backof'; did you mean 'backoff'?"),
        (lambda app: app.run_slave(none, timout=3), "run_slave has no option 'timout'; did you mean 'timeout'?"),
        (lambda app: app.slave(restarts="never")(none), "slave has no option 'restarts'; did you mean 'restart'?"),
        (lambda app: app.add_slave(none, x=1), "slave has no option 'x'; the options are after, backoff, bound, critical, ends_daemon, every, group, max_restarts, name, restart, stop_timeout, timeout, within"),
        (lambda app: app.on_event(thread=2)(one), "on_event has no option 'thread'; did you mean 'threads'?"),
        (lambda app: app.on_event(timeout=-1)(one), "timeout must be a number of seconds > 0, not -1 (int)"),
        (lambda app: app.slave(name="")(none), "a slave's name must be a string, not '' (str)"),
        (lambda app: app.on_event(threads=0)(one), "threads must be an int >= 1, not 0 (int)"),
        (lambda app: app.on_event(batch=True)(one), "batch must be an int >= 1, not True (bool)"),
        (lambda app: app.on_event(batch=5, linger=-1)(one), "linger must be a number of seconds >= 0, not -1 (int)"),
        (lambda app: app.on_event(retries=-1)(one), "retries must be an int >= 0, not -1 (int)"),
        (lambda app: app.on_event(backoff="1")(one), "backoff must be a number of seconds, or the first and the longest wait, as in (1, 60), not '1' (str)"),
        (lambda app: app.on_event(linger=1)(one), "linger needs batch: single events are passed on at once"),
        (lambda app: app.status_field(name="uptime")(none), "'uptime' is one of daemonkit's own status fields; choose another by name="),
        (lambda app: app.run_slave(none, 5), "run_slave passes arguments to a Slave subclass only; none() is a function: use functools.partial"),
        (lambda app: app.status_field(name="")(none), "a status field's name must be a string, not '' (str)"),
        (lambda app: app.on_event(generator), "on_event takes a plain function, and generator() is a generator: calling it would run nothing"),
        (lambda app: app.slave(async_generator), "slave takes a plain function, and async_generator() is a generator: calling it would run nothing"),
        (lambda app: app.on_stop(AsyncCall()), "on_stop takes a plain function, and AsyncCall() is async def: nothing would await it; only a slave may be async"),
        (lambda app: app.slave(Demanding), "cannot create the slave Demanding: missing a required argument: 'url'; pass arguments to run_slave"),
        (lambda app: app.route(none), "route takes a rule such as '/hello', not "),
        (lambda app: app.route("hello")(none), "route takes a rule such as '/hello', not 'hello' (str)"),
        (lambda app: [app.route("/a", methods=["GET", "PUT"])(none), app.route("/a", methods=["PUT"])(one)], "PUT /a is already registered"),
        (lambda app: Daemon(""), "a daemon's name must be a string, not '' (str)"),
    ],
)  # fmt: skip
def test_a_wrong_registration_says_what_to_do(
    app: Daemon, call: Callable[[Daemon], Any], message: str
) -> None:
    with pytest.raises(RegistrationError) as caught:
        call(app)

    assert str(caught.value).startswith(message)
    assert message.endswith(("not ", "none")) or str(caught.value) == message


def test_after_start_every_registrar_refuses(app: Daemon) -> None:
    with running(app):
        for registrar in [*TWICE, "on_event"]:
            with pytest.raises(RegistrationError, match="can't be registered once the daemon has"):
                getattr(app, registrar)(one if registrar == "on_event" else none)
        with pytest.raises(RegistrationError) as caught:
            app.route("/late")(none)
        with pytest.raises(RegistrationError, match="in a running daemon, use run_slave"):
            app.slave(none)
        with pytest.raises(RegistrationError, match="SIGHUP loads it again"):
            app.configure({})

    assert str(caught.value) == (
        "the route /late can't be registered once the daemon has started; "
        "register it before start()"
    )


@pytest.mark.parametrize(
    ("handler", "with_meta"),
    [
        (lambda event: None, False),
        (lambda event, meta: None, True),
        (lambda event, circumstances: None, True),
        (lambda event, meta=None: None, True),
        (lambda event, retries=3: None, False),
        (lambda *args: None, False),
        (functools.partial(lambda prefix, event: None, "p"), False),
        (functools.partial(lambda prefix, event, meta: None, "p"), True),
        ([].append, False),
        (dict, False),
    ],
)
def test_a_handler_with_a_second_parameter_gets_meta(
    app: Daemon, handler: Any, with_meta: bool
) -> None:
    app.on_event(handler)

    assert app._registry.handler is not None
    assert app._registry.handler.with_meta is with_meta


class Named(Worker):
    def __init__(self, timeout: int, **more: Any) -> None:
        self.arguments = (timeout, more)


def test_keywords_of_run_slave_are_options_unless_the_class_names_them(app: Daemon) -> None:
    app.run_slave(Named, name="n", timeout=5, critical=False, after=["x"], url="u")
    app.run_slave(Worker, timeout=5)
    named, worker = app._registry.slaves

    assert (named.name, named.timeout, named.critical, named.after) == ("n", None, False, ("x",))
    assert named.kwargs == {"timeout": 5, "url": "u"}
    assert (worker.timeout, worker.kwargs) == (5, {})


def test_the_reserved_status_keys_are_those_of_status(app: Daemon) -> None:
    # The view adds the rights of who asks.
    assert set(app.status()) | {"rights"} == STATUS_KEYS
