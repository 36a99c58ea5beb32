from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from daemonkit.cli.client import BadAddress, Unreachable
from daemonkit.cli.target import Target
from daemonkit.cli.target_options import target_options


def test_a_command_gets_the_target_and_the_timeout() -> None:
    seen: list[Any] = []

    @click.command()
    @target_options(7.0)
    def command(target: Target, timeout: float) -> None:
        seen.append((target, timeout))

    CliRunner().invoke(command, [])
    CliRunner().invoke(command, ["-c", "a", "--token-file", "b", "--timeout", "1.5"])

    assert seen == [(Target(), 7.0), (Target(None, "a", "b"), 1.5)]


@pytest.mark.parametrize(("error", "status"), [(BadAddress("no"), 2), (Unreachable("no"), 3)])
def test_an_error_is_one_line_and_its_exit_status(error: Exception, status: int) -> None:
    @click.command()
    @target_options(7.0)
    def command(**_: Any) -> None:
        raise error

    result = CliRunner().invoke(command, [])

    assert (result.exit_code, result.output) == (status, "daemonkit: no\n")
