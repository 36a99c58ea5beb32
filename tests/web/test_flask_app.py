from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest
import requests
from werkzeug.routing import Rule

from daemonkit import BatchTooLarge, Daemon, QueueFull, Unavailable
from daemonkit.testing import running

from .connections import full
from .corpus import NDJSON


def wrap_wsgi(app: Daemon, seen: list[str]) -> None:
    inner = app.flask.wsgi_app

    def middleware(environ: Any, start_response: Any) -> Any:
        seen.append(environ["PATH_INFO"])
        return inner(environ, start_response)

    app.flask.wsgi_app = middleware  # type: ignore[method-assign]


def note(seen: list[str]) -> Callable[..., Any]:
    def hook(*arguments: Any, **options: Any) -> Any:
        seen.append("/events")
        return arguments[0] if arguments and isinstance(arguments[0], flask.Response) else None

    return hook


def own_route(app: Daemon, seen: list[str]) -> None:
    @app.route("/events", methods=["POST"])
    def mine() -> str:
        seen.append("/events")
        return "mine"


def own_view(app: Daemon, seen: list[str]) -> None:
    app.flask.seal()
    app.flask.view_functions["daemonkit./events"] = lambda: seen.append("/events") or "mine"  # type: ignore[func-returns-value]


def own_request_class(app: Daemon, seen: list[str]) -> None:
    class Request(flask.Request):
        def __init__(self, environ: Any, **options: Any) -> None:
            super().__init__(environ, **options)
            seen.append(self.path)

    app.flask.request_class = Request


def signal(app: Daemon, seen: list[str]) -> None:
    def started(sender: Any, **_: Any) -> None:
        seen.append("/events")

    flask.request_started.connect(started, app.flask)
    app.on_stop(lambda: flask.request_started.disconnect(started, app.flask))


def rule(app: Daemon, seen: list[str]) -> None:
    def mine() -> str:
        seen.append("/events")
        return "mine"

    app.flask.view_functions["mine"] = mine
    app.flask.url_map.add(Rule("/events", methods=["POST"], endpoint="mine"))


WATCHERS: dict[str, Callable[[Daemon, list[str]], Any]] = {
    "before_request": lambda app, seen: app.flask.before_request(note(seen)),
    "after_request": lambda app, seen: app.flask.after_request(note(seen)),
    "teardown_request": lambda app, seen: app.flask.teardown_request(note(seen)),
    "teardown_appcontext": lambda app, seen: app.flask.teardown_appcontext(note(seen)),
    "url_value_preprocessor": lambda app, seen: app.flask.url_value_preprocessor(note(seen)),
    "blueprint's before_request": lambda app, seen: app.blueprint.before_request(note(seen)),
    "blueprint's after_request": lambda app, seen: app.blueprint.after_request(note(seen)),
    "blueprint's before_app_request": lambda app, seen: app.blueprint.before_app_request(
        note(seen)
    ),
    "middleware": wrap_wsgi,
    "own route": own_route,
    "own view": own_view,
    "rule": rule,
    "request class": own_request_class,
    "signal": signal,
}


@pytest.mark.parametrize("watch", WATCHERS.values(), ids=WATCHERS)
def test_functions_that_flask_calls_see_requests_to_events(
    watch: Callable[[Daemon, list[str]], Any],
) -> None:
    app, seen = Daemon("app"), list[str]()
    watch(app, seen)
    with running(app) as client:
        assert client.post("/events", data=b"1").status_code == 200
        assert "/events" in seen
        shown = client.status()["http"]
        assert shown["fast_events"] == 0
        assert shown["fast_lane"].startswith("closed: a")


def test_a_hook_added_later_sees_the_next_request() -> None:
    """Flask allows it until its first request, and it doesn't see those in the lane."""
    app, seen = Daemon("app"), list[str]()
    with running(app) as client:
        client.post("/events", data=b"1")
        assert app._assembly.parts is not None
        assert app._assembly.parts.server.counters()["fast_events"] == 1
        app.flask.before_request(note(seen))
        client.post("/events", data=b"1")

        assert seen == ["/events"]


def patch_flask(name: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Patch Flask as tracing tools do; returns the calls that they see."""
    seen: list[str] = []
    real = getattr(flask.Flask, name)

    def patched(self: Any, *arguments: Any) -> Any:
        seen.append(name)
        return real(self, *arguments)

    monkeypatch.setattr(flask.Flask, name, patched)
    return seen


DISPATCH_METHODS = ["__call__", "wsgi_app", "full_dispatch_request"]


@pytest.mark.parametrize("name", [*DISPATCH_METHODS, "make_response"])
def test_a_tool_that_has_patched_flask_s_class_sees_requests_to_events(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = patch_flask(name, monkeypatch)
    with running(Daemon("app")) as client:
        client.post("/events", data=b"1")

        assert seen == [name]
        assert client.status()["http"]["fast_lane"] == "closed: a patch of Flask's classes"


@pytest.mark.parametrize("name", DISPATCH_METHODS)
def test_a_tool_that_patches_flask_s_class_later_sees_requests_to_events(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Daemon("app")) as client:
        client.post("/events", data=b"1")
        seen = patch_flask(name, monkeypatch)
        client.post("/events", data=b"1")

        assert seen == [name]


def test_a_cookie_that_flask_renews_is_renewed() -> None:
    app = Daemon("app")
    app.flask.secret_key = "secret"

    @app.route("/login")
    def login() -> str:
        flask.session["user"] = 1
        flask.session.permanent = True
        return "hello"

    with running(app) as client, requests.Session() as session:
        session.get(client.url + "/login")
        answer = session.post(client.url + "/events", data=b"1")

    assert "session=" in answer.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda flask_app: flask_app.config.update(MAX_CONTENT_LENGTH=1), 413),
        (lambda flask_app: flask_app.config.update(TRUSTED_HOSTS=["elsewhere"]), 400),
        (lambda flask_app: setattr(flask_app.url_map, "host_matching", True), 404),
    ],
)
def test_limits_set_for_flask_apply(change: Callable[[Any], Any], status: int) -> None:
    app = Daemon("app")
    change(app.flask)
    with running(app) as client:
        assert client.post("/events", data=b"12").status_code in (status, 200)
        assert app._assembly.parts is not None
        assert app._assembly.parts.server.counters()["fast_events"] == 0


@pytest.mark.parametrize("error", [QueueFull, Unavailable])
def test_the_user_s_error_handler_answers(error: type[Exception]) -> None:
    app = Daemon("app")
    app.flask.errorhandler(error)(lambda error: ("mine", 418))
    with full(app) as client:
        assert client.post("/events", data=b"1").text == "mine"


def test_the_blueprint_s_error_handler_answers() -> None:
    app = Daemon("app")
    app.blueprint.errorhandler(BatchTooLarge)(lambda error: ("mine", 418))
    with full(app) as client:
        answer = client.post("/events", data=b"1\n2", headers={"Content-Type": NDJSON[14:]})

    assert answer.text == "mine"


@pytest.mark.parametrize("body", [b"nope", b"1"])
def test_an_answer_by_flask_leaves_the_lane_open(body: bytes) -> None:
    """Flask's lookups of hooks and error handlers leave entries even when there are none."""
    app = Daemon("app")
    with running(app) as client:
        client.post("/events", data=body, headers={"Connection": "close"})
        client.post("/events", data=b"1")

        assert client.status()["http"]["fast_events"] == 1


def test_other_routes_and_hooks_leave_the_lane_open() -> None:
    app = Daemon("app")
    elsewhere = flask.Flask("elsewhere")

    def started(sender: Any, **_: Any) -> None: ...

    flask.request_started.connect(started, elsewhere)
    other = flask.Blueprint("other", "other")
    other.before_request(lambda: None)
    other.add_url_rule("/other", view_func=lambda: "other")
    app.flask.register_blueprint(other)
    app.route("/hello", endpoint="hello")(lambda: "hello")
    app.flask.errorhandler(404)(lambda error: ("nothing", 404))
    app.flask.errorhandler(KeyError)(lambda error: ("no such key", 404))
    with running(app) as client:
        assert client.get("/hello").text == "hello"
        assert client.get("/other").text == "other"
        assert client.get("/nowhere").text == "nothing"
        assert client.post("/events", data=b"1").status_code == 200
        assert client.status()["http"]["fast_events"] == 1
