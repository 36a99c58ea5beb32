from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit.cli import status as module
from daemonkit.cli.client import Client, parse_address
from daemonkit.cli.group import group

from .stub import Reply, Request, Stub, envelope, serving
from .test_status_screen import STATUS


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving(lambda _: envelope(STATUS)) as found:
        yield found


def run(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["status", *arguments], catch_exceptions=False)


def test_a_healthy_daemon_is_shown_with_exit_status_0(stub: Stub) -> None:
    result = run(stub.url)

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "● billing - running, healthy"
    assert lines[2] == f"  Address: {stub.url}"
    # It isn't a terminal.
    assert "\x1b" not in result.stdout
    assert [request.path for request in stub.requests] == ["/status", "/ping"]


def test_problems_are_exit_status_1(stub: Stub) -> None:
    stub.answer = lambda _: envelope({**STATUS, "problems": ["the slave sweep has failed"]})

    assert run(stub.url).exit_code == 1
    assert run(stub.url, "--json").exit_code == 1


def test_it_is_not_healthy_if_its_own_health_check_says_so(stub: Stub) -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/ping":
            return Reply(503, b"the database\nis away\n")
        return envelope(STATUS)

    stub.answer = answer
    result = run(stub.url)

    assert result.stdout.splitlines()[0] == (
        "● billing - running, its health check answers 503 the database is away"
    )
    assert (result.exit_code, run(stub.url, "--json").exit_code) == (1, 1)


def test_a_health_check_that_hangs_hides_no_status(stub: Stub) -> None:
    stub.answer = lambda request: Reply(None) if request.path == "/ping" else envelope(STATUS)
    result = run(stub.url)

    assert result.exit_code == 1
    assert "running, its health check doesn't answer: cannot reach " in result.stdout
    assert "sweep   running" in result.stdout


def test_a_status_of_null_is_shown(stub: Stub) -> None:
    stub.answer = lambda _: envelope(None)

    assert (run(stub.url, "--json").stdout, run(stub.url).stdout) == ("null\n", "null\n")


def test_json_is_the_daemon_s_object_as_it_is(stub: Stub) -> None:
    result = run("--json", stub.url)

    assert result.exit_code == 0
    assert json.loads(result.stdout) == STATUS
    assert list(json.loads(result.stdout)) == list(STATUS)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_refusal_is_one_line_and_exit_status_1(stub: Stub, options: list[str]) -> None:
    stub.answer = lambda _: envelope("This needs a token", 401)
    result = run(stub.url, *options)

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"daemonkit: {stub.url} answered 401 This needs a token; "
        "give a token by --config, --token-file or $DAEMONKIT_TOKEN\n"
    )


def test_an_answer_of_another_program_is_exit_status_1(stub: Stub) -> None:
    stub.answer = lambda _: Reply(200, b"<html>")

    what = "which isn't an answer of daemonkit: is it another program?"
    assert run(stub.url).stderr == f"daemonkit: {stub.url} answered 200 OK; {what}\n"
    assert run(stub.url).exit_code == 1


def test_an_unreachable_daemon_is_exit_status_3() -> None:
    result = run("unix:/nowhere")

    assert result.exit_code == 3
    assert result.stderr == "daemonkit: cannot reach unix:/nowhere: No such file or directory\n"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (["--watch", "--json"], "give --watch or --json, not both"),
        (["--watch"], "--watch needs a terminal"),
    ],
)
def test_wrong_usage_is_exit_status_2(options: list[str], error: str) -> None:
    result = run(*options)

    assert result.exit_code == 2
    assert result.stderr.startswith(f"daemonkit: {error}")


def test_dead_letters_of_a_durable_queue_are_asked_for(stub: Stub) -> None:
    def answer(request: Request) -> Reply:
        if request.path == "/status":
            return envelope({**STATUS, "events": {"dead": 2}})
        return envelope({"events": [{"id": 9, "error": "KeyError"}, {"id": 8, "error": "x"}]})

    stub.answer = answer
    result = run(stub.url)

    assert stub.requests[-1].path == "/status/failed?state=dead&limit=5"
    assert [line.split()[0] for line in result.stdout.splitlines()[-5:-3]] == ["8", "9"]


def test_an_older_daemon_that_cannot_list_them_is_shown_nevertheless(stub: Stub) -> None:
    stub.answer = lambda request: (
        envelope("Not found", 404)
        if request.path.startswith("/status/")
        else envelope({**STATUS, "events": {"dead": 2}})
    )
    result = run(stub.url)

    assert result.exit_code == 0
    assert "2 dead" in result.stdout


# Watching


class Watcher:
    """A watched stub, whose screens are drawn one by one."""

    def __init__(self, stub: Stub) -> None:
        self.client = Client(parse_address(stub.url), timeout=60)
        self._watched = module._Watched(self.client)

    def draw(self, columns: int = 80, lines: int = 24) -> list[str]:
        found = self._watched.draw(columns, lines)
        assert len(found) <= lines
        return found


@pytest.fixture
def watcher(stub: Stub) -> Iterator[Watcher]:
    made = Watcher(stub)
    yield made
    made.client.close()


def test_it_shows_the_time_and_the_status(watcher: Watcher) -> None:
    head, empty, first, *_ = watcher.draw()

    assert head[8:] == "  every 2 s, Ctrl-C to stop"
    assert (empty, first) == ("", "● billing - running, healthy")


def test_a_daemon_that_is_gone_is_said_to_be_gone(watcher: Watcher, stub: Stub) -> None:
    watcher.draw()
    stub.answer = lambda _: Reply(None)
    _, problem, age, _, first, *_ = watcher.draw()

    assert problem == f"cannot reach {stub.url}: the connection was closed before an answer"
    assert age.startswith("What follows is 0.")
    assert age.endswith(" s old.")
    assert first == "● billing - running, healthy"


def test_a_daemon_that_was_never_there_shows_nothing_old(watcher: Watcher, stub: Stub) -> None:
    stub.answer = lambda _: envelope("This needs a token", 401)
    _, problem = watcher.draw(200)

    assert problem.startswith(f"{stub.url} answered 401 This needs a token")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pid": 4712}, ": it was restarted (pid 4711, now 4712)"),
        ({"started": "2026-11-27 00:00:00.000000"}, ": it was restarted (pid 4711, now 4711)"),
        ({"name": "shop\x1b"}, ": billing was replaced by shop\\u001b"),
    ],
)
def test_a_restart_and_a_replacement_stay_visible(
    watcher: Watcher, stub: Stub, change: dict[str, Any], text: str
) -> None:
    watcher.draw()
    stub.answer = lambda _: envelope({**STATUS, **change})

    for _ in range(2):
        assert watcher.draw()[1][8:] == text


def test_old_values_are_faint_on_a_terminal(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.Style, "of", lambda _: module.Style(True))
    watcher = Watcher(stub)
    watcher.draw()
    stub.answer = lambda _: Reply(None)
    lines = watcher.draw()
    watcher.client.close()

    assert lines[4] == "\x1b[2m● billing - running, healthy\x1b[0m"
