from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit.cli.group import group

from .stub import Reply, serving


def ping(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["ping", *arguments], catch_exceptions=False)


def test_a_healthy_daemon_s_text_is_printed() -> None:
    with serving(lambda _: Reply(200, b"OK\nPaused: events (by oncall)\n")) as stub:
        result = ping(stub.url)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "OK\nPaused: events (by oncall)\n"
    assert stub.requests[0].path == "/ping"


@pytest.mark.parametrize(("status", "reason"), [(503, "Service Unavailable"), (204, "No Content")])
def test_any_other_answer_is_exit_status_1(status: int, reason: str) -> None:
    text = b"" if status == 204 else b"the slave sweep \x1b[31m has failed\n"
    with serving(lambda _: Reply(status, text)) as stub:
        result = ping(stub.url)

    assert result.exit_code == 1
    assert result.stdout == text.decode().replace("\x1b", "\\u001b").rstrip("\n") + "\n"
    assert result.stderr == f"daemonkit: {stub.url} answered {status} {reason}\n"


def test_an_unreachable_daemon_is_exit_status_3(tmp_path: Path) -> None:
    result = ping(f"unix:{tmp_path}/none")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"daemonkit: cannot reach unix:{tmp_path}/none: No such file or directory\n"
    )


def test_the_address_comes_from_the_daemon_s_configuration(tmp_path: Path) -> None:
    config = tmp_path / "cfg.yaml"
    with serving(lambda _: Reply(200, b"OK\n"), tmp_path / "s") as stub:
        config.write_text(f"master: {{host: '{stub.url}'}}\n")
        assert ping("--config", str(config)).stdout == "OK\n"

    config.write_text("master: {port: x}\n")
    result = ping("-c", str(config))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"daemonkit: {config}:1: master.port must be an int")


def test_wrong_usage_is_exit_status_2() -> None:
    assert [ping(*words).exit_code for words in (["a"], ["--timeout", "0"], ["a", "b"])] == [
        2,
        2,
        2,
    ]
