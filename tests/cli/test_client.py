from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemonkit.cli.client import Address, Answer, BadAddress, Client, Unreachable, parse_address

from .stub import Reply, Request, envelope, serving

FORM = "http://HOST:PORT, https://HOST or unix:/PATH"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("http://localhost:5151", ("http", "localhost", 5151, "")),
        ("http://[::1]:5151/", ("http", "::1", 5151, "")),
        ("http://billing", ("http", "billing", 80, "")),
        ("https://example.org/billing/", ("https", "example.org", 443, "/billing")),
        ("unix:/run/a b.sock", ("unix", "/run/a b.sock", 0, "")),
    ],
)
def test_an_address_is_read(text: str, address: tuple[str, str, int, str]) -> None:
    assert parse_address(text) == Address(text, *address)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost:5151", f"the URL must be {FORM}, not 'localhost:5151'"),
        ("", f"the URL must be {FORM}, not ''"),
        ("http://:5151", f"the URL must be {FORM}, not 'http://:5151'"),
        ("http://a:99999", f"the URL must be {FORM}, not 'http://a:99999'"),
        ("http://[::1", f"the URL must be {FORM}, not 'http://[::1'"),
        ("http://a b", f"the URL must be {FORM}, not 'http://a b'"),
        ("unix:run.sock", f"the URL must be {FORM}, not 'unix:run.sock'"),
        ("http://me:secret@a", f"the URL must be {FORM}, without a user name, `?` and `#`"),
        ("http://a/?x=1", f"the URL must be {FORM}, without a user name, `?` and `#`"),
        # No password is shown.
        ("http://me:sec ret@a", f"the URL must be {FORM}"),
    ],
)
def test_what_is_no_address_is_an_error(text: str, message: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse_address(text)

    assert (str(caught.value), caught.value.exit_status) == (message, 2)


@contextmanager
def client(url: str, token: str | None = None, timeout: float = 60.0) -> Iterator[Client]:
    made = Client(parse_address(url), token, timeout)
    yield made
    made.close()


def test_requests_share_a_connection_and_carry_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b\n")
    with (
        serving(lambda request: envelope(request.path)) as stub,
        client(stub.url + "/prefix", "t" * 16) as sender,
        client(stub.url) as other,
    ):
        answers = [sender.get("/a"), sender.post("/b", b"{}"), other.get("/c")]

    assert [answer.message() for answer in answers] == ["/prefix/a", "/prefix/b", "/c"]
    assert stub.connections == 2
    first, second, third = stub.requests
    assert first.fields["authorization"] == "Bearer " + "t" * 16
    assert (second.fields["content-type"], second.body) == ("application/json", b"{}")
    assert "authorization" not in third.fields


def test_a_unix_socket_works_like_a_port(tmp_path: Path) -> None:
    with (
        serving(lambda _: Reply(200, b"OK\n"), tmp_path / "s") as stub,
        client(stub.url) as sender,
    ):
        answer = sender.get("/ping")

    assert (answer.status, answer.text, stub.requests[0].fields["host"]) == (
        200,
        "OK\n",
        "localhost",
    )


@pytest.mark.parametrize("closed_by", ["Connection: close", "the server, later"])
def test_a_connection_that_was_closed_is_opened_again(closed_by: str) -> None:
    says_so = closed_by == "Connection: close"
    fields = {"Connection": "close"} if says_so else {}
    with (
        serving(lambda _: Reply(200, b"", fields, keeps_open=False)) as stub,
        client(stub.url) as sender,
    ):
        for _ in range(3):
            assert sender.get("/").status == 200
            stub.closed.get(timeout=60)

    assert (len(stub.requests), stub.connections) == (3, 3)


def unreachable(url: str, timeout: float = 60.0) -> Unreachable:
    with client(url, timeout=timeout) as sender, pytest.raises(Unreachable) as caught:
        sender.get("/")
    return caught.value


def test_a_port_where_nothing_listens_is_unreachable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        error = unreachable(url)

    assert str(error) == f"cannot reach {url}: Connection refused"
    assert (error.was_sent, error.exit_status) == (False, 3)


def test_a_socket_that_is_missing_is_unreachable(tmp_path: Path) -> None:
    url = f"unix:{tmp_path}/none"

    assert str(unreachable(url)) == f"cannot reach {url}: No such file or directory"


def test_a_connection_closed_before_the_answer_may_have_had_its_effect() -> None:
    with serving(lambda _: Reply(None)) as stub:
        error = unreachable(stub.url)

    assert str(error).endswith(": the connection was closed before an answer")
    assert (error.was_sent, len(stub.requests)) == (True, 1)


def test_an_answer_that_does_not_come_is_not_waited_for_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}", 0.05)

    assert str(error).endswith(": no answer within 0.05 s")
    assert error.was_sent


def test_what_is_not_http_is_unreachable() -> None:
    def answer(_: Request) -> Reply:
        return Reply(200, b"short", {"Content-Length": "100"}, keeps_open=False)

    with serving(answer) as stub:
        error = unreachable(stub.url)

    assert ": not an answer in HTTP: IncompleteRead: " in str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"message": "No", "result": false}', "403 No"),
        (b'{"message": {"a": 1}}', "403 Forbidden"),
        (b"[1]", "403 Forbidden"),
        (b"[" * 100_000, "403 Forbidden"),
        (b"\xff", "403 Forbidden"),
    ],
)
def test_a_refusal_is_told_in_one_line(body: bytes, said: str) -> None:
    assert Answer(403, "Forbidden", {}, body).said() == said
