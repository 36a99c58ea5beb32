from __future__ import annotations

import io
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit.cli import send as module
from daemonkit.cli.client import Client, Unreachable
from daemonkit.cli.group import group

from .stub import Reply, Request, Stub, envelope, serving


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.chdir(tmp_path)
    with serving(lambda _: envelope("received")) as found:
        monkeypatch.setenv("DAEMONKIT_URL", found.url)
        yield found


def send(*arguments: str, input: str = "") -> Any:
    return CliRunner().invoke(group, ["send", *arguments], input=input, catch_exceptions=False)


def without_rate(text: str) -> str:
    before, _, after = text.partition(" (")
    return before + after.partition(")")[2]


def test_an_event_is_sent_as_json(stub: Stub) -> None:
    result = send('{"paid": 5}')

    (request,) = stub.requests
    assert (request.json(), request.fields["content-type"]) == ({"paid": 5}, "application/json")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "1 event sent: 1 accepted, 0 refused, 0 unknown\n"


def test_with_two_arguments_the_first_one_is_the_url(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMONKIT_URL", "unix:/nowhere")

    assert send(stub.url, "5").exit_code == 0
    assert send("5", stub.url).exit_code == 2
    assert send(stub.url).exit_code == 2
    assert send().exit_code == 2
    assert len(stub.requests) == 1


def test_a_file_s_events_are_sent_in_batches(stub: Stub) -> None:
    Path("5").write_text("1\n2\n\n3\n")
    result = send("./5", "--batch", "2")

    assert [request.body for request in stub.requests] == [b"1\n2\n", b"3\n"]
    assert (result.exit_code, result.stderr) == (0, "")
    assert without_rate(result.stdout) == "3 events sent: 3 accepted, 0 refused, 0 unknown\n"


def test_stdin_s_events_are_sent(stub: Stub) -> None:
    result = send("-", input='"a"\n"b"\n')

    assert [request.body for request in stub.requests] == [b'"a"\n"b"\n']
    assert result.exit_code == 0


def test_an_empty_input_is_no_error(stub: Stub) -> None:
    result = send("-")

    assert (result.exit_code, stub.requests) == (0, [])
    assert result.stdout == "0 events sent: 0 accepted, 0 refused, 0 unknown\n"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ('{"a": x}', "the event is not valid JSON: Expecting value at line 1 column 7"),
        ("nothing.ndjson", "'nothing.ndjson' is neither valid JSON nor a file"),
        ("wrong.ndjson", "wrong.ndjson: line 2: Expecting value at line 1 column 1"),
    ],
)
def test_what_is_wrong_is_noticed_before_anything_is_sent(
    stub: Stub, given: str, error: str
) -> None:
    Path("wrong.ndjson").write_text("1\nx\n3\n")
    result = send(given)

    assert (result.exit_code, result.stdout, stub.requests) == (2, "", [])
    assert result.stderr.startswith(f"daemonkit: {error.partition(': Exp')[0]}")


def test_a_pipe_s_lines_before_an_invalid_one_are_sent(stub: Stub) -> None:
    result = send("-", input="1\n2\nx\n3\n")

    assert [request.body for request in stub.requests] == [b"1\n2\n"]
    assert result.exit_code == 2
    assert result.stderr.startswith("daemonkit: -: line 3: ")
    assert without_rate(result.stdout) == (
        "2 events sent: 2 accepted, 0 refused, 0 unknown; nothing after line 2\n"
    )


def test_refused_and_lost_batches_add_up(stub: Stub) -> None:
    def answer(request: Request) -> Reply:
        if request.body == b"2\n":
            return envelope("Invalid JSON", 400)
        return Reply(None) if request.body == b"3\n" else envelope("received")

    stub.answer = answer
    result = send("-", "--batch", "1", input="1\n2\n3\n4\n")

    assert without_rate(result.stdout) == "4 events sent: 2 accepted, 1 refused, 1 unknown\n"
    assert result.exit_code == 3
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == ["line 2", "line 3"]


def test_only_refused_events_are_exit_status_1(stub: Stub) -> None:
    stub.answer = lambda _: envelope("Invalid JSON", 400)

    assert send("1").exit_code == 1


def test_of_many_refusals_the_first_ones_are_reported(stub: Stub) -> None:
    stub.answer = lambda _: envelope("Invalid JSON", 400)
    result = send("-", "--batch", "1", input="1\n" * 15)

    lines = result.stderr.splitlines()
    assert (len(lines), lines[-1]) == (11, "daemonkit: 5 more batches were not accepted")


def test_a_missing_token_ends_it_at_once(stub: Stub) -> None:
    stub.answer = lambda _: envelope("This needs a token", 401)
    result = send("-", "--batch", "1", input="1\n" * 15)

    assert (result.exit_code, len(stub.requests)) == (1, 1)
    assert without_rate(result.stdout) == (
        "1 event sent: 0 accepted, 1 refused, 0 unknown; nothing after line 1\n"
    )


@pytest.mark.parametrize(("count", "rest"), [(2, "; nothing after line 1"), (1, "")])
def test_of_a_file_it_says_what_was_not_sent(stub: Stub, count: int, rest: str) -> None:
    Path("events.ndjson").write_text("1\n" * count)
    stub.answer = lambda _: envelope("This needs a token", 401)
    result = send("events.ndjson", "--batch", "1")

    assert result.stdout == f"1 event sent: 0 accepted, 1 refused, 0 unknown{rest}\n"


def test_an_unreachable_daemon_is_exit_status_3(stub: Stub) -> None:
    result = send("unix:/nowhere", "1")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "daemonkit: cannot reach unix:/nowhere: No such file or directory\n"


def test_ctrl_c_prints_what_was_sent(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: Request) -> Reply:
        monkeypatch.setattr(module.HttpSender, "send", interrupt)
        return envelope("received")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    stub.answer = answer
    result = send("-", "--batch", "1", input="1\n2\n3\n")

    assert (result.exit_code, result.stderr) == (130, "daemonkit: interrupted\n")
    assert result.stdout == "1 event sent: 1 accepted, 0 refused, 0 unknown; nothing after line 1\n"


@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_that_could_not_be_sent_is_not_counted(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    def gone(*_: Any) -> None:
        raise Unreachable("cannot reach it", was_sent=False)

    def answer(_: Request) -> Reply:
        monkeypatch.setattr(Client, "post", gone)
        return envelope("received")

    stub.answer = answer
    Path("events.ndjson").write_text("1\n" * count)
    result = send("events.ndjson", "--batch", "1", "--retry-for", "0")

    assert result.stdout == "1 event sent: 1 accepted, 0 refused, 0 unknown; nothing after line 1\n"
    assert result.exit_code == 3


def test_the_rate_makes_batches_small_and_apart(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    monkeypatch.setattr(module.Pace, "wait", lambda self, count: waits.append(count))
    send("-", "--rate", "20", input="1\n" * 5)

    assert waits == [2, 2, 1]


def test_datagrams_are_sent_to_the_same_port(stub: Stub) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(60)
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}"
        result = send(url, "--udp", "-", input='1\n{"a": 2}\n')
        received = [json.loads(receiver.recv(100)) for _ in range(2)]

    assert received == [1, {"a": 2}]
    assert (result.exit_code, result.stderr) == (0, "")
    assert without_rate(result.stdout) == "2 events sent: 2 as datagrams, 0 too large\n"


@pytest.mark.parametrize("url", ["unix:/a", "https://a"])
def test_datagrams_need_a_port(stub: Stub, url: str) -> None:
    result = send("--udp", url, "1")

    assert result.exit_code == 2
    assert result.stderr.startswith("daemonkit: --udp needs a URL of the form http://HOST:PORT")


def test_on_a_terminal_reports_come_after_the_progress_bar(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answer = lambda _: envelope("Invalid JSON", 400)
    Path("events.ndjson").write_text("1\n2\n")
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    reports = module._Reports()
    reports.is_deferred = True
    monkeypatch.setattr(sys, "stderr", terminal)
    reports("line 1: no")
    assert terminal.getvalue() == ""
    reports.finish()

    assert terminal.getvalue() == "daemonkit: line 1: no\n"
