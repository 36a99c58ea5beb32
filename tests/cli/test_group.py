from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from daemonkit.cli.group import COMMANDS, group


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(group, arguments, prog_name="daemonkit", catch_exceptions=False)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_lists_every_command(option: str) -> None:
    result = invoke(option)

    listed = result.stdout.partition("Commands:\n")[2].splitlines()
    assert (result.exit_code, [line.split()[0] for line in listed]) == (0, list(COMMANDS))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_one_line(name: str) -> None:
    assert invoke(name, "-h").exit_code == 0
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert command.get_short_help_str(100).endswith(".")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["nonsense"], "No such command 'nonsense'; see daemonkit --help"),
        (["run"], "Missing argument 'MODULE[:ATTR]'; see daemonkit run --help"),
        (["events", "list", "a"], "Got unexpected extra argument (a); see daemonkit events list --help"),
        (["events", "list"], "no queue given: use --queue FILE or --config FILE; see daemonkit events list --help"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_one_line_and_exit_status_2(arguments: list[str], line: str) -> None:
    result = invoke(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"daemonkit: {line}\n"


def test_without_a_command_it_shows_the_help() -> None:
    result = invoke()

    assert "Commands:" in result.output


def test_ctrl_c_ends_a_command_as_in_a_shell() -> None:
    @click.command()
    def wait() -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(group), "get_command", lambda *_: wait)
        result = invoke("wait")

    assert (result.exit_code, result.stderr) == (130, "\ndaemonkit: interrupted\n")
