from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from daemonkit import Daemon, PingError, RegistrationError
from daemonkit.testing import running

REGISTRARS = {
    "on_start": ("add_start_hook", "start"),
    "on_stop": ("add_stop_hook", "stop"),
    "on_reload": ("add_reload_hook", "reload"),
    "on_validate": ("add_validate_hook", "validate"),
    "on_dead_letter": ("add_dead_letter_hook", "dead_letter"),
    "on_health_change": ("add_health_change_hook", "health_change"),
}


def any_number(*arguments: Any) -> None: ...


@pytest.mark.parametrize("name", REGISTRARS)
def test_each_hook_is_registered_bare_called_and_imperatively(name: str) -> None:
    app = Daemon("app")
    twin, kind = REGISTRARS[name]
    hooks = [partial(any_number, n) for n in range(3)]

    assert getattr(app, name)(hooks[0]) is hooks[0]
    assert getattr(app, name)()(hooks[1]) is hooks[1]
    getattr(app, twin)(hooks[2])

    assert getattr(app._hooks, kind) == hooks
    with pytest.raises(RegistrationError, match=f"is already an {name} hook; register it once"):
        getattr(app, twin)(hooks[0])


@pytest.mark.parametrize("name", REGISTRARS)
@pytest.mark.parametrize(
    "wrong", [1, lambda a, b, c: None, pytest.param(any_number, id="after the start")]
)
def test_an_invalid_hook_is_refused(name: str, wrong: Any) -> None:
    app = Daemon("app")
    if wrong is any_number:
        app._freeze()

    with pytest.raises(RegistrationError):
        getattr(app, name)(wrong)


def test_a_check_of_the_configuration_runs_before_anything_else() -> None:
    app = Daemon("app", config={"a": 1})
    calls: list[Any] = []
    app.on_start(lambda: calls.append("start"))

    @app.on_validate
    def check(config: dict[str, Any], master_config: dict[str, Any]) -> None:
        calls.append((config, master_config["queue_size"]))

    with running(app):
        pass

    assert calls == [({"a": 1}, 100_000), "start"]


def test_a_change_of_health_is_reported_in_both_directions() -> None:
    app = Daemon("app")
    seen: list[list[str]] = []
    broken: list[int] = []

    @app.slave(every=0.01, max_restarts=None)
    def work() -> None:
        if broken:
            raise ValueError("no")

    @app.on_health_change
    def changed(problems: list[Any]) -> None:
        seen.append([problem.text for problem in problems])
        raise SystemExit(1)

    with running(app) as client:
        broken.append(1)
        client.wait_until(lambda: len(seen) == 1)
        broken.clear()
        client.wait_until(lambda: len(seen) == 2)

    assert ["work" in text for text in seen[0]] == [True]
    assert seen[1:] == [[]]


@pytest.mark.parametrize("durable", [False, True])
def test_a_dead_letter_is_passed_to_the_hook_once_it_is_stored(
    tmp_path: Any, durable: bool
) -> None:
    master = {"queue": str(tmp_path / "q.db")} if durable else {}
    app = Daemon("app", config={"master": master})
    seen: list[Any] = []

    @app.on_event(retries=1, backoff=0)
    def handle(event: Any) -> None:
        raise PingError("no")

    @app.on_dead_letter
    def dead(event: Any, failure: Any) -> None:
        seen.append((event, failure, app.status()["events"]["dead"]))

    with running(app) as client:
        client.send_event({"a": 1})
        client.wait_until(lambda: seen)

    ((event, failure, dead_letters),) = seen
    assert (event, dead_letters) == ({"a": 1}, 1)
    assert (failure.error, failure.attempts) == ("PingError: no", 2)
    assert failure.first <= failure.last
    assert failure.first.tzinfo is not None
