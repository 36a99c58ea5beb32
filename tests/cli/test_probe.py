from __future__ import annotations

import subprocess
import sys

import pytest

from daemonkit.cli.probe import Ping, parse, seconds
from daemonkit.cli.target import Target

from ..test_lazy_imports import modules_after
from .stub import Reply, serving


@pytest.mark.parametrize(
    ("arguments", "ping"),
    [
        ([], Ping(Target())),
        (["http://a"], Ping(Target("http://a"))),
        (["--timeout", "2", "unix:/a"], Ping(Target("unix:/a"), 2.0)),
        (["--token-file=a=b", "--timeout=.5"], Ping(Target(token_file="a=b"), 0.5)),
    ],
)
def test_plain_arguments_are_read(arguments: list[str], ping: Ping) -> None:
    assert parse(arguments) == ping


@pytest.mark.parametrize(
    "arguments",
    ["--help", "-c x", "--config x", "a b", "--timeout x", "--timeout", "--timeout=", "--", "-x",
     "--timeout 1 --timeout 2"],
)  # fmt: skip
def test_all_others_are_left_to_click(arguments: str) -> None:
    assert parse(arguments.split()) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("5", 5.0), ("0", None), ("-1", None), ("inf", None), ("nan", None), ("5s", None)],
)
def test_seconds_are_positive(text: str, number: float | None) -> None:
    assert seconds(text) == number


def test_it_starts_without_what_takes_long_to_import() -> None:
    with serving(lambda _: Reply(200, b"OK\n")) as stub:
        found = modules_after(
            f"import sys\nsys.argv = ['daemonkit', 'ping', '{stub.url}']\n"
            "from daemonkit.cli import main\n"
            "try: main()\nexcept SystemExit as end: assert end.code == 0"
        )

    assert len(stub.requests) == 1
    assert "http.client" in found
    late = {"click", "flask", "logging", "requests", "urllib.request", "waitress", "yaml"}
    assert late & found == set()


def test_errors_are_reported_without_click() -> None:
    command = [sys.executable, "-m", "daemonkit", "ping", "billing"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "daemonkit: the URL must be http://HOST:PORT, https://HOST or unix:/PATH, not 'billing'\n"
    )


def test_a_reader_that_goes_away_changes_nothing() -> None:
    with serving(lambda _: Reply(200, b"OK\n")) as stub:
        command = f"{sys.executable} -m daemonkit ping {stub.url} | true"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True
        )

    assert (done.returncode, done.stderr) == (0, "")
