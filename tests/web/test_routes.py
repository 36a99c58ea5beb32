from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import date
from typing import Any

import flask
import pytest
from werkzeug.exceptions import Gone, HTTPException

from daemonkit import Daemon, InvalidEvent, PingError, QueueFull, Secret
from daemonkit.testing import Client, running
from daemonkit.web import routes

RECEIVED = {"message": "Event received", "result": True}


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


@pytest.fixture
def events(app: Daemon) -> list[Any]:
    got: list[Any] = []
    app.on_event(got.append)
    return got


@pytest.fixture
def client(app: Daemon, events: list[Any]) -> Iterator[Client]:
    with running(app, {"master": {"max_request_size": 1000, "queue_size": 1000}}) as client:
        yield client


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "application/x-www-form-urlencoded", "text/x; a=b"]
)
def test_an_event_is_accepted_whatever_its_content_type(
    client: Client, events: list[Any], content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post("/events", data=b'{"Hello": "World"}', headers=headers)
    client.wait_until(lambda: events)

    assert (answer.status_code, answer.json()) == (200, RECEIVED)
    assert answer.headers["Content-Type"] == "application/json"
    assert events == [{"Hello": "World"}]


def test_a_chunked_event_is_accepted(client: Client, events: list[Any]) -> None:
    answer = client.post("/events", data=iter([b'{"a"', b": 1}"]))
    client.wait_until(lambda: events)

    assert answer.json() == RECEIVED
    assert events == [{"a": 1}]


READS: dict[str, Callable[[], Any]] = {
    "form": lambda: flask.request.form.to_dict(),
    "values": lambda: flask.request.values.to_dict(),
    "files": lambda: flask.request.files.to_dict(),
    "data": lambda: flask.request.get_data(),
    "data, not kept": lambda: flask.request.get_data(cache=False),
    "JSON": lambda: flask.request.get_json(silent=True),
    "some": lambda: flask.request.stream.read(3),
    "all": lambda: flask.request.stream.read(),
    "a form as bytes": lambda: flask.request.get_data(parse_form_data=True),
}


@pytest.mark.parametrize("framing", ["Content-Length", "chunked"])
@pytest.mark.parametrize("name", READS)
def test_an_event_is_accepted_whatever_a_hook_has_read_of_it(
    app: Daemon, events: list[Any], name: str, framing: str
) -> None:
    """curl's default content type is that of a form."""
    hook = READS[name]
    app.flask.before_request(lambda: (hook(), None)[1])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    large = "x" * 600_000
    with running(app) as client:
        for event in ({"Hello": "World"}, large):
            body = json.dumps(event).encode()
            data: Any = body if framing == "Content-Length" else iter([body])
            assert client.post("/events", data=data, headers=form).json() == RECEIVED
        client.wait_until(lambda: len(events) == 2)

    assert events == [{"Hello": "World"}, large]


def test_a_body_that_a_hook_replaces_is_the_event(app: Daemon, events: list[Any]) -> None:
    def replace() -> None:
        flask.request._cached_data = flask.request.get_data().upper()

    app.flask.before_request(replace)
    with running(app) as client:
        assert client.post("/events", data=b'"event"').json() == RECEIVED
        client.wait_until(lambda: events)

    assert events == ["EVENT"]


def test_middleware_may_replace_the_body_with_a_minimal_stream(
    app: Daemon, events: list[Any]
) -> None:
    """With only what PEP 3333 requires."""

    class Bare:
        def __init__(self, inner: Any) -> None:
            self.read, self.readline, self.readlines = inner.read, inner.readline, inner.readlines

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.readline, b"")

    real = app.flask.wsgi_app
    app.flask.wsgi_app = lambda environ, start: real(  # type: ignore[method-assign]
        {**environ, "wsgi.input": Bare(environ["wsgi.input"])}, start
    )
    with running(app) as client:
        assert client.post("/events", data=b'"event"').json() == RECEIVED
        client.wait_until(lambda: events)

    assert events == ["event"]


def test_large_bodies_and_files_need_no_temporary_folder(
    app: Daemon, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("no usable temporary directory")

    for name in ("TemporaryFile", "SpooledTemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", missing)
    monkeypatch.setattr("werkzeug.formparser.TemporaryFile", missing, raising=False)
    monkeypatch.setattr("werkzeug.formparser.SpooledTemporaryFile", missing, raising=False)
    app.route("/size", methods=["POST"], endpoint="size")(
        lambda: str(len(flask.request.files["file"].read()))
    )
    app.route("/large", endpoint="large")(lambda: b"x" * 20_000_000)
    with running(app, {"master": {"max_event_size": "10MiB"}}) as client:
        text = "x" * 5_000_000
        assert client.post("/events", json=text).json() == RECEIVED
        chunked = iter([b'"', text.encode(), b'"'])
        assert client.post("/events", data=chunked).json() == RECEIVED
        assert client.post("/size", files={"file": text}).text == "5000000"
        assert client.get("/large").content == b"x" * 20_000_000
        client.wait_until(lambda: len(events) == 2)

    assert events == [text, text]


NDJSON = {"Content-Type": "application/x-ndjson; charset=utf-8"}


@pytest.mark.parametrize(
    ("count", "message"), [(100, "100 events received"), (1, "1 event received")]
)
def test_ndjson_is_accepted_as_a_batch(
    client: Client, events: list[Any], count: int, message: str
) -> None:
    body = b"\n".join(b"%d" % number for number in range(count))
    answer = client.post("/events", data=body, headers=NDJSON)
    client.wait_until(lambda: len(events) == count)

    assert answer.status_code == 200
    assert answer.json() == {"message": message, "result": True, "accepted": count}
    assert events == list(range(count))


def test_with_one_invalid_line_of_ndjson_no_event_is_queued(
    client: Client, events: list[Any]
) -> None:
    answer = client.post("/events", data=b"1\n2\n{\n4\n", headers=NDJSON)

    assert answer.status_code == 400
    assert answer.json() == {
        "message": "Invalid JSON: line 3: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1)",
        "result": False,
    }
    assert client.status()["events"]["received"] == 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "the body is empty"),
        (b"{]", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"NaN", "NaN is not JSON: line 1 column 1 (char 0)"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[" * 999, "nested deeper than 200 levels: line 1 column 201 (char 200)"),
        (b"1e999", "1e999 is too large a number: line 1 column 1 (char 0)"),
    ],
)
def test_invalid_json_is_answered_400_with_the_position(
    client: Client, body: bytes, why: str
) -> None:
    answer = client.post("/events", data=body, headers={"Content-Length": str(len(body))})

    assert answer.status_code == 400
    assert answer.json() == {"message": f"Invalid JSON: {why}", "result": False}


def test_a_body_at_the_limit_is_accepted_and_one_over_it_gets_413(client: Client) -> None:
    fits = client.post("/events", data=b'"%s"' % (b"x" * 998))
    over = client.post("/events", data=b'"%s"' % (b"x" * 999))
    chunked = client.post("/events", data=iter([b'"%s"' % (b"x" * 2000)]))

    assert fits.status_code == 200
    for answer in (over, chunked):
        assert answer.status_code == 413
        assert answer.headers["Connection"] == "close"
        assert answer.json() == {
            "message": "The body is over the limit of 1000 bytes (max_request_size)",
            "result": False,
        }


def test_a_refused_body_of_megabytes_still_gets_its_answer(client: Client) -> None:
    answer = client.post("/events", data=b"x" * 20_000_000)

    assert answer.status_code == 413


def test_a_wrong_method_is_405_with_allow_and_an_unknown_path_404(client: Client) -> None:
    wrong, unknown = client.get("/events"), client.get("/nowhere")

    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "OPTIONS, POST")
    assert wrong.json() == {
        "message": "Method GET is not allowed for /events",
        "result": False,
    }
    assert unknown.status_code == 404
    assert unknown.json() == {"message": "Not found: /nowhere", "result": False}


def test_a_full_queue_and_a_stopping_daemon_are_503_with_retry_after(app: Daemon) -> None:
    entered: list[Any] = []

    @app.on_event
    def handle(event: Any) -> None:
        entered.append(event)
        app.shutdown.wait(10)

    with running(app, {"master": {"queue_size": 1}}) as client:
        client.send_event(1)
        client.wait_until(lambda: entered)
        client.send_event(2)
        full = client.post("/events", data=b"3")
        too_large = client.post("/events", data=b"1\n2\n3", headers=NDJSON)
        with pytest.raises(QueueFull):
            app.put_event(4)
        assert app._assembly.parts is not None
        app._assembly.parts.intake.close()
        stopping = client.post("/events", data=b"5")

    assert (full.status_code, full.headers["Retry-After"]) == (503, "1")
    assert full.json() == {"message": "The event queue is full (1 events)", "result": False}
    assert too_large.status_code == 413
    assert too_large.json() == {
        "message": "3 events at once are more than the queue holds (queue_size is 1)",
        "result": False,
    }
    assert (stopping.status_code, stopping.headers["Retry-After"]) == (503, "5")
    assert stopping.json() == {"message": "The daemon is stopping", "result": False}
    assert entered == [1, 2]


def test_meta_says_where_an_event_came_from(app: Daemon) -> None:
    metas: list[Any] = []
    app.on_event(lambda event, meta: metas.append(meta))

    with running(app) as client:
        client.send_event(1)
        app.put_event(2)
        client.wait_until(lambda: len(metas) == 2)

    assert [(meta.source, meta.attempt) for meta in metas] == [("http", 1), ("app", 1)]
    assert metas[0].peer.startswith("127.0.0.1:")
    assert metas[1].peer is None


def test_put_event_checks_what_http_checks(app: Daemon) -> None:
    with pytest.raises(InvalidEvent, match="^not a JSON value: Object of type date"):
        app.put_event(date(2020, 1, 1))


# The user's routes


@pytest.mark.parametrize(
    "error", [ValueError("secret"), SystemExit(3), KeyboardInterrupt(), MemoryError()]
)
def test_any_exception_in_a_users_route_is_500_in_the_envelope_and_logged(
    app: Daemon, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @app.route("/bad")
    def bad() -> Any:
        raise type(error)(*error.args)

    app.route("/none", endpoint="none")(lambda: None)

    @app.route("/half")
    def half() -> Any:
        def stream() -> Iterator[bytes]:
            raise type(error)(*error.args)
            yield b""

        return flask.Response(stream())

    with running(app) as client:
        answers = [client.get(path) for path in ("/bad", "/none", "/half")]
        assert client.get("/ping").text == "OK\n"

    for answer in answers:
        assert answer.status_code == 500
        assert answer.json() == {"message": "Internal Server Error", "result": False}
    logged = [record.getMessage() for record in caplog.records if record.exc_info]
    first = "GET /bad" if isinstance(error, Exception) else "A request"
    assert [line.partition(" (")[0] for line in logged] == [
        *(f"{first} failed", "GET /none failed", "A request failed")
    ]


def test_users_error_handlers_win_over_the_librarys(app: Daemon) -> None:
    @app.blueprint.app_errorhandler(ZeroDivisionError)
    @app.flask.errorhandler(404)
    def mine(error: Exception) -> Any:
        return type(error).__name__, 499

    @app.blueprint.app_errorhandler(Exception)
    def any_other(error: Exception) -> Any:
        return "other", 498

    app.route("/zero", endpoint="zero")(lambda: 1 / 0)
    app.route("/value", endpoint="value")(lambda: int("x"))

    with running(app) as client:
        answers = [client.get(path) for path in ("/zero", "/value", "/nowhere")]

    assert [answer.text for answer in answers] == ["ZeroDivisionError", "other", "NotFound"]


def test_a_handler_for_every_exception_leaves_the_librarys_errors_alone(app: Daemon) -> None:
    """As in Flask, a handler for a class wins over one for its base class."""
    app.errorhandler(Exception)(lambda error: ("mine", 499))
    with running(app) as client:
        assert client.post("/events", data=b"{").status_code == 400
        assert client.post("/events", data=b"1").json() == RECEIVED
        assert client.get("/events").text == "mine"
        assert client.status()["http"]["fast_lane"] == "open"


def test_an_http_error_that_a_handler_or_a_view_returns_is_in_the_envelope(app: Daemon) -> None:
    """Flask's documentation has such a handler, to pass HTTP errors through."""

    @app.errorhandler(Exception)
    def handler(error: Exception) -> Any:
        return error if isinstance(error, HTTPException) else ("mine", 499)

    app.route("/zero", endpoint="zero")(lambda: 1 / 0)
    app.route("/gone", endpoint="gone")(lambda: Gone("no more"))
    client = app.flask.test_client()

    assert client.get("/zero").text == "mine"
    assert client.get("/nowhere").get_json() == {"message": "Not found: /nowhere", "result": False}
    assert client.get("/gone").get_json() == {"message": "no more", "result": False}


def test_receivers_of_flasks_signal_see_an_exception(app: Daemon) -> None:
    seen: list[Any] = []

    def receive(sender: Any, exception: Any, **_: Any) -> None:
        seen.append(type(exception))

    app.route("/zero", endpoint="zero")(lambda: 1 / 0)
    with flask.got_request_exception.connected_to(receive, app.flask):
        assert app.flask.test_client().get("/zero").status_code == 500

    assert seen == [ZeroDivisionError]


def test_users_routes_may_answer_and_refuse_as_in_flask(app: Daemon) -> None:
    @app.route("/hello")
    def hello() -> Any:
        return {"hello": "world"}

    @app.blueprint.route("/teapot")
    def teapot() -> Any:
        flask.abort(418, "no coffee here")

    @app.route("/broken")
    def broken() -> Any:
        flask.abort(500, "the printer is on fire")

    @app.route("/own")
    def own() -> Any:
        flask.abort(flask.Response("mine", 409))

    @app.route("/away")
    def away() -> Any:
        return flask.redirect("/hello")

    @app.route("/queue", methods=["POST"])
    def queue() -> Any:
        app.put_event(float("nan"))

    with running(app) as client:
        assert client.get("/hello").json() == {"hello": "world"}
        teapot_answer = client.get("/teapot")
        assert client.get("/own").text == "mine"
        assert client.get("/broken").json()["message"] == "the printer is on fire"
        assert client.get("/away").json() == {"hello": "world"}
        assert client.post("/queue").status_code == 400

    assert teapot_answer.status_code == 418
    assert teapot_answer.json() == {"message": "no coffee here", "result": False}


def test_a_users_route_wins_over_the_librarys_and_hooks_see_every_request(app: Daemon) -> None:
    seen: list[str] = []

    @app.flask.before_request
    def look() -> None:
        seen.append(flask.request.path)

    @app.route("/status")
    def status() -> Any:
        return "mine"

    with running(app) as client:
        assert client.get("/status").text == "mine"
        client.send_event(1)

    assert seen == ["/status", "/events"]


def test_a_view_may_have_any_name(app: Daemon) -> None:
    for path in ("events", "status", "ping", "ready"):
        app.get(f"/{path}", endpoint=f"_{path}")(lambda: "mine")
    client = app.flask.test_client()

    assert client.get("/status").text == "mine"
    assert client.post("/events", data=b"1").get_json() == RECEIVED


def test_the_flask_app_is_one_and_can_be_tested_without_a_server(app: Daemon) -> None:
    app.route("/hello")(lambda: "hi")
    client = app.flask.test_client()

    assert app.flask is app.flask
    assert client.get("/hello").text == "hi"
    assert client.post("/events", data=b"1").get_json() == RECEIVED
    assert client.get("/status").get_json()["message"]["events_queue"] == 1
    assert client.get("/ping").text == "OK\n"


# Status


def test_status_has_the_keys_of_the_original(app: Daemon) -> None:
    @app.status_field
    def awesome_status() -> int:
        return 42

    config = {
        "master": {"hidden_opts": ["yt_token", "other_tokens"]},
        "yt_token": "AAAA-123123",
        "other_tokens": {"hello": "AAAA-asdasdasd"},
    }
    with running(app, config) as client:
        answer = client.get("/status").json()
    message = answer["message"]

    assert answer["result"] is True
    assert message["config"] == {"other_tokens": "*** HIDDEN ***", "yt_token": "*** HIDDEN ***"}
    assert message["master_config"]["port"] == client.port
    assert message["master_config"]["hidden_opts"] == ["yt_token", "other_tokens"]
    assert (message["name"], message["events_queue"], message["slaves"]) == ("app", 0, [])
    assert message["awesome_status"] == 42
    assert len(message["started"]) == len("2018-02-01 18:41:37.872030")
    assert 0 < message["uptime"] < 10


def test_a_failing_field_hides_no_other_and_the_answer_is_valid_json(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    app.add_status_field(lambda: 1 / 0, name="broken")
    app.add_status_field(lambda: sys.exit(3), name="exits")
    app.add_status_field(lambda: {date(2020, 1, 1): float("nan")}, name="odd")
    app.add_status_field(lambda: "\ud800", name="surrogate")

    with running(app) as client:
        body = [client.get("/status").text for _ in range(2)][-1]
    message = json.loads(body, parse_constant=lambda name: pytest.fail(name))["message"]

    assert message["broken"] == {"error": "ZeroDivisionError: division by zero"}
    assert message["exits"] == {"error": "SystemExit: 3"}
    assert message["odd"] == {"2020-01-01": "nan"}
    assert message["surrogate"] == "\ud800"
    assert (
        caplog.messages.count("The status field broken failed; /status shows the error instead")
        == 1
    )


def test_a_status_override_that_raises_still_shows_the_rest() -> None:
    class Broken(Daemon):
        def status(self) -> dict[str, Any]:
            raise ValueError("no status")

    with running(Broken()) as client:
        message = client.status()

    assert message["error"] == "ValueError: no status"
    assert message["name"] == "Broken"


def test_secrets_do_not_leak_through_status_ping_or_errors(
    app: Daemon, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.add_status_field(lambda: {"url": "http://x:hush@y", "hush": Secret("hush")}, name="leak")

    @app.on_ping
    def ping() -> Any:
        raise PingError("cannot log in with hush")

    @app.route("/abort")
    def abort() -> Any:
        flask.abort(400, "bad password hush")

    other = Daemon("other")
    other.add_ping_check(lambda: ("hush", 429))
    config = {"password": Secret("hush")}
    with running(app, config) as client, running(other, config) as second:
        bodies = [client.get(path).text for path in ("/status", "/ping", "/abort")]
        bodies.append(second.get("/ping").text)

    assert [body.count("hush") for body in bodies] == [0, 0, 0, 0]
    assert [body.count("*** HIDDEN ***") for body in bodies] == [4, 1, 1, 1]


# Ping


def answer(value: Any) -> Callable[[], Any]:
    return lambda: value


def raising(error: BaseException) -> Callable[[], Any]:
    def check() -> Any:
        raise error

    return check


@pytest.mark.parametrize(
    ("check", "code", "text"),
    [
        (answer("fine\n"), 200, "fine\n"),
        (answer(None), 200, "OK\n"),
        (answer(True), 200, "OK\n"),
        (answer(False), 503, "The health check returned False\n"),
        (answer(("busy", 429)), 429, "busy"),
        (raising(PingError("database is away", 500)), 500, "database is away"),
        (raising(PingError("database is away")), 503, "database is away"),
        (raising(PingError(OSError("disk"))), 503, "disk"),
        (raising(PingError("x" * 9_000)), 503, "x" * 8_000 + "..."),
        (raising(ValueError("internals")), 500, "The health check failed\n"),
        (raising(SystemExit(1)), 500, "The health check failed\n"),
        (answer(object()), 500, "The health check failed\n"),
    ],
)
def test_ping_answers_what_the_check_returns(
    app: Daemon, check: Callable[[], Any], code: int, text: str
) -> None:
    app.add_ping_check(check)

    with running(app) as client:
        got = client.get("/ping")
        again = client.get("/ping")

    assert (got.status_code, got.text) == (code, text)
    assert again.status_code == code
    if code != 429:
        assert got.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_routes_and_checks_that_keep_failing_do_not_fill_the_log(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    app.add_ping_check(raising(ValueError("internals")))

    @app.route("/orders/<number>")
    def order(number: str) -> Any:
        raise KeyError(number)

    @app.route("/stream")
    def stream() -> Any:
        return flask.Response(1 // number for number in [0])

    with running(app) as client:
        for number in range(5):
            for path in ("/ping", f"/orders/{number}", "/stream"):
                assert client.get(path).status_code == 500

    lines = [re.sub(r" in the last \d+ s at \S+:\d+,", ",", line) for line in caplog.messages]
    failed = [line for line in lines if " failed" in line]
    assert sorted(failed) == [
        "A request failed (Exception while serving /stream)",
        "A request failed: 4 more, last (Exception while serving /stream): "
        "ZeroDivisionError: integer division or modulo by zero",
        "GET /orders/<number> failed (/orders/0)",
        "GET /orders/<number> failed: 4 more, last (/orders/4): KeyError: '4'",
        "The health check failed",
        "The health check failed: 4 more, last: ValueError: internals",
    ]


def test_an_exception_in_the_check_is_logged(app: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    app.add_ping_check(raising(ValueError("internals")))
    with running(app) as client:
        client.get("/ping")

    (record,) = [r for r in caplog.records if r.message == "The health check failed"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "internals"


def test_the_default_check_notices_that_the_event_processor_has_died(app: Daemon) -> None:
    with running(app) as client:
        assert app._assembly.parts is not None
        # Only a bug of ours can end it.
        app._assembly.parts.queue.close()
        app._assembly.parts.processor.join(5)
        got = client.get("/ping")

    assert (got.status_code, got.text) == (503, "the event processor is not running\n")


def test_ready_is_answered_with_the_phase(client: Client) -> None:
    answer = client.get("/ready")

    assert answer.status_code == 200
    assert answer.json() == {
        "message": "Ready",
        "result": True,
        "phase": "running",
        "waiting_for": [],
    }


def test_a_health_check_that_hangs_is_not_called_again_until_it_returns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "PING_HANGS", 0)
    app, entered, may_return = Daemon("app"), threading.Event(), threading.Event()

    @app.on_ping
    def check() -> None:
        entered.set()
        may_return.wait(10)

    with running(app) as client:
        thread = threading.Thread(target=client.get, args=["/ping"])
        thread.start()
        entered.wait(10)
        second = client.get("/ping")
        may_return.set()
        thread.join()
        third = client.get("/ping")

    assert (second.status_code, third.status_code) == (503, 200)
    assert second.text == "The health check hangs: it was called 0 s ago\n"
