from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import pytest
from click.testing import CliRunner

from daemonkit.cli import ctl as module
from daemonkit.cli.ctl import Control
from daemonkit.cli.group import group
from daemonkit.cli.target import Target

from .stub import Stub, envelope, serving


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with serving(lambda _: envelope("Done")) as found:
        monkeypatch.setenv("DAEMONKIT_URL", found.url)
        yield found


def ctl(*arguments: str, input: str = "") -> Any:
    return CliRunner().invoke(group, ["ctl", *arguments], input=input, catch_exceptions=False)


@pytest.mark.parametrize(
    ("arguments", "path", "body"),
    [
        ("reload", "reload", {}),
        ("stop", "stop", {}),
        ("level debug", "level", {"level": "DEBUG"}),
        ("level urllib3 INFO --for 10m", "level", {"level": "INFO", "logger": "urllib3", "for": 600}),
        ("level default", "level", {"level": "DEFAULT"}),
        ("level DEBUG --for 1.5", "level", {"level": "DEBUG", "for": 1.5}),
        ("pause events", "pause", {"events": True}),
        ("pause sweep", "pause", {"slave": "sweep"}),
        ("resume events", "resume", {"events": True}),
        ("resume sweep", "resume", {"slave": "sweep"}),
        ("restart sweep", "restart", {"slave": "sweep"}),
        ("run-now sweep", "run-now", {"slave": "sweep"}),
        ("stacks", "stacks", {}),
        ("stacks sweep", "stacks", {"slave": "sweep"}),
        ("retry 1 2", "retry", {"ids": [1, 2]}),
        ("retry --all", "retry", {"all": True}),
        ("retry --all --state retrying --error OSError", "retry",
         {"all": True, "state": "retrying", "error": "OSError"}),
        ("drop 1", "drop", {"ids": [1]}),
        ("drop --all --yes", "drop", {"all": True}),
    ],
)  # fmt: skip
def test_a_verb_is_a_request(stub: Stub, arguments: str, path: str, body: dict[str, Any]) -> None:
    result = ctl(*arguments.split())

    assert (result.exit_code, result.stdout, result.stderr) == (0, "Done\n", "")
    (request,) = stub.requests
    assert (request.method, request.path, request.json()) == ("POST", f"/control/{path}", body)
    assert request.fields["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ("level", "give [LOGGER] LEVEL; LEVEL is one of DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ("level loud", "give [LOGGER] LEVEL; "),
        ("level a b DEBUG", "give [LOGGER] LEVEL; "),
        ("level DEBUG --for soon", "Invalid value for --for: 'soon' is not a duration of 1..604800 seconds, such as 30, 30s, 5m or 1h"),
        ("pause", "Missing argument 'events|SLAVE'"),
        ("retry", "give either event IDs or --all"),
        ("retry 1 --all", "give either event IDs or --all"),
        ("drop 1 --error x", "--state and --error require --all"),
        ("drop x", "Invalid value for '[ID]...': 'x' is not a valid event ID"),
        ("explode", "No such command 'explode'"),
    ],
)  # fmt: skip
def test_wrong_usage_is_exit_status_2_and_no_request(
    stub: Stub, arguments: str, error: str
) -> None:
    result = ctl(*arguments.split())

    assert (result.exit_code, result.stdout, stub.requests) == (2, "", [])
    assert result.stderr.startswith(f"daemonkit: {error}")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "There is no slave 'x'"),
        (409, "sweep isn't periodic"),
        (503, "The daemon is stopping"),
    ],
)
def test_a_refusal_is_one_line_and_exit_status_1(stub: Stub, status: int, message: str) -> None:
    stub.answer = lambda _: envelope(message, status)
    result = ctl("run-now", "x")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"daemonkit: {stub.url} answered {status} {message}\n"


def test_an_unreachable_daemon_is_exit_status_3() -> None:
    result = ctl("reload", "--url", "unix:/nowhere")

    assert result.exit_code == 3
    assert result.stderr == "daemonkit: cannot reach unix:/nowhere: No such file or directory\n"


def test_the_url_option_wins_over_the_environment(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAEMONKIT_URL", "unix:/nowhere")

    assert ctl("reload", "--url", stub.url).exit_code == 0


def test_stacks_keep_their_lines_and_control_no_terminal(stub: Stub) -> None:
    stub.answer = lambda _: envelope("sweep:\n  File x\x1b\n")

    assert ctl("stacks").stdout == "sweep:\n  File x\\u001b\n"


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        (["--all"], "Drop all dead letters?"),
        (["--all", "--state", "retrying"], "Drop all events to be retried?"),
        (["--all", "--error", "OS\x1b"], "Drop all dead letters with 'OS\\x1b' in the error?"),
        (["1", "2"], "Drop the events 1, 2?"),
    ],
)
@pytest.mark.parametrize(("answer", "requests", "status"), [("y", 1, 0), ("n", 0, 1)])
def test_on_a_terminal_dropping_asks_first(
    stub: Stub, monkeypatch: pytest.MonkeyPatch,
    arguments: list[str], question: str, answer: str, requests: int, status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "is_interactive", lambda: True)
    result = ctl("drop", *arguments, input=f"{answer}\n")

    assert (result.exit_code, len(stub.requests)) == (status, requests)
    assert result.stderr.startswith(f"{question} [y/N]: ")
    assert result.stderr.endswith("daemonkit: aborted\n") is (status == 1)
    assert ctl("drop", *arguments, "--yes").stderr == ""


def test_without_an_answer_nothing_is_dropped(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_interactive", lambda: True)
    at_the_end = ctl("drop", "1")

    def interrupted(*_: Any, **__: Any) -> bool:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise click.Abort from None

    monkeypatch.setattr(click, "confirm", interrupted)
    by_ctrl_c = ctl("drop", "1")

    assert (at_the_end.exit_code, by_ctrl_c.exit_code, stub.requests) == (1, 130, [])
    assert at_the_end.stderr.endswith("\ndaemonkit: aborted\n")
    assert by_ctrl_c.stderr == "\ndaemonkit: interrupted\n"


def test_options_may_come_before_or_after_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module.Control, "ask", lambda self, _: asked.append(self) or "Done")
    for words in (
        "--url a --token-file f --timeout 5 reload",
        "--url b --timeout 7 reload --url a --token-file f --timeout 5",
        "--token-file f reload --url a",
        "-c cfg.yaml reload",
    ):
        assert ctl(*words.split()).exit_code == 0

    of_url = Target("a", None, "f")
    assert asked == [
        Control(of_url, 5), Control(of_url, 5), Control(of_url, 60), Control(Target(None, "cfg.yaml"), 60),
    ]  # fmt: skip


def test_a_failed_event_is_shown_whole(stub: Stub) -> None:
    event = {
        "id": 7,
        "state": "dead",
        "received": None,
        "attempts": 2,
        "error": "ValueError: x\x1b",
        "traceback": "Traceback:\n  File x\n",
        "event": '{"a": [1]}',
    }
    stub.answer = lambda _: envelope(event)
    whole = ctl("show", "7").stdout
    stub.answer = lambda _: envelope({**event, "event": '{"a": [', "traceback": ""})
    cut = ctl("show", "7").stdout

    facts = "ID:            7\nState:         dead\nAttempts:      2\nError:         ValueError: x\\u001b\n"
    assert whole == f'{facts}\nTraceback:\n  File x\n\n{{\n  "a": [\n    1\n  ]\n}}\n'
    assert cut == f'{facts}\n{{"a": [\n'
