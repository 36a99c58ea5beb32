"""What the server answers to malformed requests, byte for byte as they come from the network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daemonkit import Daemon
from daemonkit.testing import Client, running

from .malformed import ANSWERS, CONNECTIONS, get, post, target
from .raw import connect, read_all, read_until

LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
"""A request whose answer shows that the connection was left open."""
SERVER = b"\r\nServer: daemonkit\r\n"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    app = Daemon("app")
    app.route("/last", endpoint="last")(lambda: "the last one")
    app.route("/empty", endpoint="empty")(lambda: ("", 204))
    app.route("/parts", endpoint="parts")(lambda: (part for part in ("a", "b")))
    with running(app) as client:
        yield client


def ask(client: Client, *datas: bytes) -> bytes:
    """Send requests and a last one; read until the server closes."""
    with connect(client) as sock:
        sock.sendall(b"".join(datas) + LAST)
        return read_all(sock)


def test_the_table_is_as_large_as_it_should_be() -> None:
    refused = {data for data, code in ANSWERS if code != 200}

    assert len(refused) >= 200
    assert len(ANSWERS) - len(refused) >= 40


@pytest.mark.parametrize(("data", "code"), ANSWERS, ids=lambda value: repr(value)[:60])
def test_each_request_is_answered_as_it_has_to_be(client: Client, data: bytes, code: int) -> None:
    received = client.status()["events"]["received"]
    answer = ask(client, data)

    assert answer[:7] == b"HTTP/1."
    assert int(answer[9:12]) == code
    is_refused = code not in (200, 404, 405)
    # What follows a refused request might be its body.
    assert answer.endswith(b"the last one") is not (is_refused or data.find(b"HTTP/1.0") > 0)
    if is_refused:
        assert answer.count(SERVER) == 1
        assert b"\r\nConnection: close\r\n" in answer
        assert b'"result": false' in answer
        assert client.status()["events"]["received"] == received


@pytest.mark.parametrize("field", CONNECTIONS)
@pytest.mark.parametrize("request_of", [get, lambda field: post(b"1", field, b"Content-Length: 1")])
def test_close_in_any_list_of_connection_options_closes(
    client: Client, field: bytes, request_of: object
) -> None:
    assert callable(request_of)
    answer = ask(client, request_of(field))

    assert answer.count(SERVER) == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_options_for_the_server_has_no_body(client: Client) -> None:
    answer = ask(client, target(b"OPTIONS * HTTP/1.1"))

    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: 0\r\n" in head
    assert rest.startswith(b"HTTP/1.1 200 OK")


def test_a_higher_minor_version_is_answered_as_1_1(client: Client) -> None:
    assert ask(client, target(b"GET /ping HTTP/1.2")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("request_line", "end"),
    [
        (b"GET /empty HTTP/1.1", b"\r\n\r\n"),
        (b"HEAD /empty HTTP/1.1", b"\r\n\r\n"),
        (b"HEAD /ping HTTP/1.1", b"\r\n\r\n"),
        (b"HEAD /parts HTTP/1.1", b"\r\n\r\n"),
        (b"GET /parts HTTP/1.1", b"\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
    ],
)
def test_an_answer_whose_end_is_known_keeps_the_connection(
    client: Client, request_line: bytes, end: bytes
) -> None:
    answer = ask(client, target(request_line))

    first, _, second = answer.partition(b"HTTP/1.1 200 OK\r\nConnection: close")
    assert b"Connection" not in first
    assert first.endswith(end)
    assert first.count(b"\r\n\r\n") == end.count(b"\r\n\r\n")
    assert second.endswith(b"the last one")


@pytest.mark.parametrize("path", [b"/empty", b"/ping", b"/parts"])
def test_http_1_0_keeps_a_connection_only_if_asked_and_the_end_is_known(
    client: Client, path: bytes
) -> None:
    line = b"GET " + path + b" HTTP/1.0\r\n"
    with connect(client) as sock:
        sock.sendall(line + b"\r\n")
        assert b"\r\nConnection: close\r\n" in read_all(sock)
    answer = ask(client, line + b"Connection: keep-alive\r\n\r\n")

    assert (b"\r\nConnection: keep-alive\r\n" in answer) is (path != b"/parts")
    assert answer.endswith(b"ab" if path == b"/parts" else b"the last one")


def test_a_bare_line_feed_is_refused_before_the_head_is_complete(client: Client) -> None:
    with connect(client) as sock:
        sock.sendall(b"GET /ping HTTP/1.1\nHost: x\n\n")
        answer = read_until(sock, b"\n")

    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"a line must end with CRLF" in answer
