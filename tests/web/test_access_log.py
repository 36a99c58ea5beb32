from __future__ import annotations

import logging
import re
import time
from typing import Any

import pytest

from daemonkit import Daemon, Secret
from daemonkit.testing import running
from daemonkit.web.access import Client
from daemonkit.web.access_log import AccessLog, Answered, _line
from daemonkit.web.fast_lane import FastLane

from .connections import ask, full, serving
from .raw import connect, read_all

TOKEN = "t" * 16
AGENT = b'Referer: http://shop/basket?card=4111\r\nUser-Agent: curl/8 "x" \\\r\n'
LINES = re.compile(r"\[[^]]+\] ")
ANSWERED = Answered(Client("192.0.2.1", 4000), "GET / HTTP/1.1", "200", 7, "", "", None, 0.5)


@pytest.fixture(params=[True, False], ids=["lane", "flask"])
def fast_events(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def event(*fields: bytes, body: bytes = b"{}") -> bytes:
    head = b"POST /events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(body)
    return head + b"".join(fields) + b"\r\n" + body


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines of the access log, without their times and durations."""
    found = [record for record in caplog.records if record.name == "app.access"]
    assert {record.levelname for record in found} <= {"INFO"}
    return [re.sub(r" \[[^]]+\]| \d+\.\d{6}$", "", record.getMessage()) for record in found]


def test_an_event_is_logged_alike_by_the_lane_and_by_flask(
    app: Daemon, fast_events: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tokens = {"shop": Secret(TOKEN)}
    master = {
        "tokens": tokens,
        "intake": ["http"],
        "trusted_proxies": ["127.0.0.1"],
        "fast_events": fast_events,
    }
    with running(app, {"master": {"access_log": True, **master}}) as client:
        with connect(client) as sock:
            behind = b"X-Forwarded-For: 192.0.2.7, 127.0.0.1\r\n"
            token = b"Authorization: Bearer %b\r\n" % TOKEN.encode()
            ask(sock, event(behind, token, AGENT))
            ask(sock, event(behind, token, b"Content-Type: application/x-ndjson\r\n", body=b"1\n2"))
        client.wait_until(lambda: len(lines(caplog)) == 2)
        assert client.status()["http"]["fast_events"] == (3 if fast_events else 0)

    first, second = lines(caplog)[:2]
    assert first == (
        '192.0.2.7 - - "POST /events HTTP/1.1" 200 46 '
        '"http://shop/basket?..." "curl/8 \\"x\\" \\\\" sender=shop'
    )
    assert second == '192.0.2.7 - - "POST /events HTTP/1.1" 200 64 "-" "-" sender=shop'


def test_what_the_server_refuses_is_logged_too(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sent = {
        b"\x16\x03\x01": '"-" 400',
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n": '"-" 400',
        b"POST /x?q HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n": (
            '"POST /x?... HTTP/1.1" 413'
        ),
        b"GET /slow HT": '"-" 408',
    }
    master = {"access_log": True, "max_request_size": 9, "request_timeout": 0.2}
    with running(app, {"master": master}) as client:
        for request in sent:
            with connect(client) as sock:
                sock.sendall(request)
                read_all(sock)
        client.wait_until(lambda: len(lines(caplog)) == len(sent))

    assert [re.sub(r"^.* - - |(?<= \d{3}) .*", "", line) for line in lines(caplog)] == [
        *sent.values()
    ]


def test_routes_that_raise_stream_or_send_no_body_are_logged(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.access")
    app.route("/raises", endpoint="raises")(lambda: 1 / 0)
    app.route("/streams", endpoint="streams")(lambda: iter(["ab", "cde"]))
    app.route("/empty", endpoint="empty")(lambda: ("", 204))

    @app.route("/breaks")
    def breaks() -> Any:
        raise SystemExit

    paths = ("raises", "streams", "empty", "breaks", "missing")
    with running(app, {"master": {"access_log": True}}) as client:
        sent = [client.get(f"/{path}?key=1", headers={"User-Agent": ""}) for path in paths]
        client._request("HEAD", "/streams")
        client.wait_until(lambda: len(lines(caplog)) == len(paths) + 1)

    # Each is logged after its answer is sent, by one thread or another.
    assert {re.sub(r'.*? - - "| "-" .*', "", line) for line in lines(caplog)} == {
        *(
            f'GET /{path}?... HTTP/1.1" {answer.status_code} {len(answer.content) or "-"}'
            for path, answer in zip(paths, sent, strict=True)
        ),
        'HEAD /streams HTTP/1.1" 200 -',
    }


def test_a_refusal_of_the_lane_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with full(Daemon("app"), access_log=True) as client, connect(client) as sock:
        ask(sock, event(AGENT))
        client.wait_until(lambda: lines(caplog))
        assert client.status()["http"]["answers"] == {"503": 1}

    assert '"POST /events HTTP/1.1" 503 ' in lines(caplog)[0]


def test_probes_are_not_logged_but_counted(app: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with running(app, {"master": {"access_log": True}}) as client:
        assert [client.get(path).status_code for path in ("/ping", "/ready")] == [200] * 2
        answers = lambda: client.status()["http"]["answers"]  # noqa: E731
        client.wait_until(lambda: answers().get("200", 0) >= 2)

    assert {line.split()[4] for line in lines(caplog)} == {"/status"}


def test_without_the_setting_there_is_no_log_and_the_lane_is_the_plain_one(
    app: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    with serving(app) as (client, server), connect(client) as sock:
        ask(sock, event())
        client.get("/status")
        assert type(server.lane) is FastLane

    assert lines(caplog) == []


def test_the_time_is_that_of_the_request_in_apache_s_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        monkeypatch.setattr(time, "time", lambda: 1_519_900_000.25)
        line = _line(ANSWERED)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert line == (
        '192.0.2.1 - - [01/Mar/2018:15:56:39 +0530] "GET / HTTP/1.1" 200 7 "-" "-" '
        "sender=- 0.500000"
    )


def test_fields_can_neither_end_early_nor_fill_the_log() -> None:
    line = _line(
        ANSWERED._replace(client=Client(None), agent='" sender=oncall \\', referer="r" * 9999)
    )

    assert line.startswith("unix - - [")
    assert line.endswith(f' "{"r" * 1000}..." "\\" sender=oncall \\\\" sender=- 0.500000')


def test_a_log_whose_level_is_above_info_gets_nothing(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("app")
    with caplog.at_level("WARNING", "app.access"):
        AccessLog(logger, None).write(ANSWERED)  # type: ignore[arg-type]

    assert caplog.records == []
