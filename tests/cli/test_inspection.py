from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, RegistrationError, Slave, StartError
from daemonkit.cli.inspection import RouteFacts, SlaveFacts, in_starting_order, inspect
from daemonkit.exceptions import DaemonkitError
from daemonkit.supervision.spec import SlaveSpec
from daemonkit.testing import running


class Worker(Slave):
    def run(self) -> None: ...


def example(**settings: Any) -> Daemon:
    app = Daemon("billing", {"token": "x", "master": settings})

    @app.slave(after=["db", "sweep"], bound=True)
    async def poller() -> None: ...

    @app.slave(every=60, restart="always", group="g")
    def sweep() -> None: ...

    app.add_slave(Worker, name="db")

    @app.on_event
    def handle(event: Any) -> None: ...

    @app.post("/hello")
    def hello() -> str:
        return "hello"

    return app


def test_it_finds_out_what_the_daemon_consists_of() -> None:
    found = inspect(example())

    assert (found.name, found.handler) == ("billing", "handle")
    assert found.slaves == [
        SlaveFacts("sweep", "function", "every 60 s", "always", [], False, "g"),
        SlaveFacts("db", "class", "once", "on-failure", [], False, None),
        SlaveFacts("poller", "coroutine", "once", "on-failure", ["db", "sweep"], True, None),
    ]
    assert RouteFacts("/hello", ["POST"], "hello", None) in found.routes
    assert {(route.rule, route.right) for route in found.routes} >= {
        ("/events", "send"), ("/status", "read"), ("/control/show", "control"), ("/ping", None),
    }  # fmt: skip
    assert [warning.partition(" looks")[0] for warning in found.warnings] == ["the option 'token'"]
    assert found.configuration[0] == ("token", "x", "the program")


def test_nothing_is_started(tmp_path: Path) -> None:
    before = threading.enumerate()
    app = example(queue=str(tmp_path / "events.db"), log_file=str(tmp_path / "log"))
    app.add_start_hook(lambda: pytest.fail("it was started"))
    inspect(app)

    assert threading.enumerate() == before
    assert list(tmp_path.iterdir()) == []


def test_slaves_are_in_the_order_of_their_dependencies() -> None:
    specs = [
        SlaveSpec(name, after=after) for name, after in (("a", ("c",)), ("b", ()), ("c", ("b",)))
    ]

    assert [spec.name for spec in in_starting_order(specs)] == ["b", "c", "a"]


def refuse(config: Any, master: Any) -> None:
    raise ValueError("no")


WRONG: dict[str, tuple[type[DaemonkitError], Callable[[Daemon], object], dict[str, Any]]] = {
    "a validator": (ConfigError, lambda app: app.add_validate_hook(refuse), {}),
    "an unknown slave": (RegistrationError, lambda app: app.add_slave(Worker, after="x"), {}),
    "the log file": (StartError, lambda app: None, {"log_file": "/nowhere/log"}),
    "a folder as log file": (StartError, lambda app: None, {"log_file": "/tmp"}),
    "the queue": (StartError, lambda app: None, {"queue": "/nowhere/events.db"}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_prevents_a_start_is_the_same_error(what: str) -> None:
    kind, break_it, settings = WRONG[what]
    found = []
    for check in (inspect, lambda app: app.serve()):
        app = example(host="127.0.0.1", port=0, **settings)
        break_it(app)
        with pytest.raises(kind) as caught:
            check(app)
        found.append(str(caught.value))

    assert found[0] == found[1]


def test_a_daemon_that_passes_starts() -> None:
    app = example()
    inspect(app)
    with running(app) as client:
        assert client.post("/hello").text == "hello"
