from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Response, abort, url_for

from daemonkit import Daemon, RegistrationError
from daemonkit.testing import running


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_each_method_has_a_shortcut(method: str) -> None:
    app = Daemon("app")

    @getattr(app, method)("/x")
    def view() -> str:
        return "seen"

    with running(app) as client:
        answer = client._request(method.upper(), "/x")
        other = client._request("GET" if method != "get" else "POST", "/x")

    assert (answer.status_code, answer.text) == (200, "seen")
    assert other.status_code == 405
    with pytest.raises(RegistrationError, match=f"^{method} takes no methods; use route"):
        getattr(Daemon("app"), method)("/y", methods=["GET"])


def test_add_url_rule_has_flask_s_signature() -> None:
    app = Daemon("app")
    app.add_url_rule("/a", "first", lambda: "a")
    app.add_url_rule("/b/<int:n>", view_func=lambda n: str(n + 1), endpoint="second")
    app.add_url_rule("/c", "third", lambda: url_for("daemonkit.first"), methods=["POST"])

    with running(app) as client:
        assert client.get("/a").text == "a"
        assert client.get("/b/4").text == "5"
        assert client.post("/c").text == "/a"


def test_one_rule_may_have_a_view_for_each_method() -> None:
    app = Daemon("app")
    app.get("/x")(lambda: "got")
    app.post("/x", endpoint="posted")(lambda: "posted")

    with pytest.raises(RegistrationError, match="^GET /x is already registered$"):
        app.route("/x", endpoint="again", methods=["get"])(lambda: "")
    with running(app) as client:
        assert (client.get("/x").text, client.post("/x").text) == ("got", "posted")


def test_a_decorator_that_is_used_twice_keeps_its_endpoint() -> None:
    register = Daemon("app").route("/x", endpoint="mine")
    register(lambda: "first")

    with pytest.raises(RegistrationError, match="^a route named 'mine' is already registered"):
        register(lambda: "second")


def test_request_hooks_and_error_handlers_work_as_in_flask() -> None:
    app = Daemon("app")
    seen: list[str] = []

    @app.before_request
    def before() -> None:
        seen.append("before")

    @app.after_request
    def after(response: Response) -> Response:
        response.headers["X-After"] = "yes"
        return response

    @app.errorhandler(404)
    def lost(error: Exception) -> tuple[str, int]:
        return "nothing here", 404

    @app.errorhandler(KeyError)
    def missing(error: Exception) -> tuple[str, int]:
        return f"no {error}", 400

    @app.get("/x")
    def view() -> str:
        raise KeyError("x")

    @app.get("/y")
    def gone() -> str:
        abort(404)

    with running(app) as client:
        answers = [client.get(path) for path in ("/x", "/y", "/z")]

    assert [(a.status_code, a.text) for a in answers] == [
        (400, "no 'x'"),
        (404, "nothing here"),
        (404, "nothing here"),
    ]
    assert {a.headers["X-After"] for a in answers} == {"yes"}
    assert seen == ["before"] * 3


@pytest.mark.parametrize(
    "register",
    [
        lambda app: app.before_request,
        lambda app: app.after_request,
        lambda app: app.errorhandler(404),
        lambda app: app.get("/late"),
    ],
)
def test_after_the_start_nothing_can_be_registered(register: Callable[[Daemon], Any]) -> None:
    app = Daemon("app")
    app._freeze()

    with pytest.raises(RegistrationError, match="once the daemon has started"):
        register(app)(lambda *_: None)


@pytest.mark.parametrize("wrong", [None, "x", 5])
def test_a_view_must_be_callable(wrong: Any) -> None:
    app = Daemon("app")

    for register in (app.before_request, app.after_request, app.errorhandler(500), app.get("/")):
        with pytest.raises(RegistrationError, match="takes a function"):
            register(wrong)


PROGRAM = """
from flask import render_template, url_for
from daemonkit import Daemon
{make}

@app.get("/page")
def page():
    return render_template("page.html", address=url_for("static", filename="style.css"))
"""


@pytest.mark.parametrize(
    "make",
    ["app = Daemon('app')", "class My(Daemon):\n    pass\napp = My()"],
)
def test_templates_and_static_files_are_beside_the_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: str
) -> None:
    folder = tmp_path / "program"
    for name, text in (
        ("templates/page.html", "<link href={{ address }}>"),
        ("static/style.css", "body {}"),
        ("routed.py", PROGRAM.format(make=make)),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    module: dict[str, Any] = {"__name__": "routed", "__file__": str(folder / "routed.py")}
    monkeypatch.setitem(__import__("sys").modules, "routed", type("M", (), module))
    exec(compile(PROGRAM.format(make=make), "routed.py", "exec"), module)

    with running(module["app"]) as client:
        assert client.get("/page").text == "<link href=/static/style.css>"
        assert client.get("/static/style.css").text == "body {}"
        assert client.get("/static/nothing").status_code == 404
        assert client.status()["http"]["fast_lane"] == "open"


def test_without_a_static_folder_static_is_an_ordinary_route() -> None:
    app = Daemon("app")
    app.get("/static/<name>")(lambda name: f"my {name}")

    with running(app) as client:
        assert client.get("/static/x").text == "my x"
