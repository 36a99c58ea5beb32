from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from daemonkit.cli.output import fail, say
from daemonkit.cli.queue_options import (
    Queue,
    QueueSource,
    queue_command,
    queue_options,
    source_of,
)
from daemonkit.events.durable.database import Broken
from daemonkit.exceptions import StartError

from ..engines import Engine


def run(function: Callable[[Queue], None], *arguments: str) -> Result:
    """Run a command of a group; both have the queue options."""

    @click.group()
    @queue_options
    @click.pass_context
    def group(
        context: click.Context, /, queue: str | None, config: str | None, name: str | None
    ) -> None:
        context.obj = source_of(queue, config, name)

    group.command("do")(queue_command(function))
    return CliRunner().invoke(group, arguments, catch_exceptions=False)


def show(queue: Queue) -> None:
    say([str(queue)])


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["--queue", "a", "do"], "a"),
        (["do", "-q", "a"], "a"),
        (["--queue", "a", "do", "--queue", "b"], "b"),
        (["--config", "cfg.yaml", "do"], "events.db"),
        (["--queue", "a", "do", "-c", "cfg.yaml"], "events.db"),
        (["--config", "none.yaml", "do", "--queue", "b"], "b"),
    ],
)
def test_the_options_of_the_command_win_over_those_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], path: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cfg.yaml").write_text("master: {queue: events.db}\n")
    result = run(show, *arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert Path(result.stdout.strip()).name == path


@pytest.mark.parametrize(
    "arguments", [["do"], ["-q", "a", "-c", "b", "do"], ["do", "-q", "a", "-c", "b"]]
)
def test_exactly_one_source_is_needed(arguments: list[str]) -> None:
    assert run(show, *arguments).exit_code == 2


def test_a_configuration_without_a_durable_queue_is_an_error(tmp_path: Path) -> None:
    config = tmp_path / "cfg.yaml"
    config.write_text("master: {port: 80}\n")
    result = run(show, "do", "--config", str(config))

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"daemonkit: {config}: master.queue is not set: the daemon keeps its events in memory; "
        "see `daemonkit status` and `daemonkit ctl`\n"
    )


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (StartError("no"), 3, "no"),
        (Broken("no"), 3, "the event queue a can't be read: no"),
        (sqlite3.OperationalError("no"), 1, "the event queue a: no"),
    ],
)
def test_an_error_takes_one_line(error: Exception, status: int, line: str) -> None:
    def raise_it(path: str) -> None:
        raise error

    result = run(raise_it, "do", "-q", "a")

    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"daemonkit: {line}\n")


def test_a_message_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail("\x1b[31m", 7)

    assert caught.value.code == 7
    assert capsys.readouterr().err == "daemonkit: \\u001b[31m\n"


def test_a_source_is_named(tmp_path: Path) -> None:
    assert source_of("a", None, "b") == QueueSource(queue="a", config=None, name="b")


def test_a_queue_of_several_is_named_and_the_only_one_shown(engine: Engine, tmp_path: Path) -> None:
    config = tmp_path / "cfg.yaml"
    config.write_text(f"master: {{queue: {engine.address()}}}\n")

    def add(queue: Queue) -> None:
        with closing(queue.open(create=True)) as opened:
            opened.add([b"1"])
            say([f"{opened.count(['waiting'])} wait"])

    result = run(add, "--config", str(config), "--name", "one", "do")
    assert (result.stdout, result.stderr) == ("1 wait\n", "")
    result = run(add, "--queue", engine.address(), "do")
    assert (result.stdout, result.stderr) == ("2 wait\n", "daemonkit: the queue of one\n")
    result = run(add, "do", "--queue", engine.address(), "--name", "other")
    assert (result.stdout, result.stderr) == ("1 wait\n", "")
    result = run(add, "do", "--config", str(config))
    assert (result.exit_code, result.stderr) == (
        3,
        f"daemonkit: there are several event queues in {engine.address()} (one, other); "
        "name one: --name NAME\n",
    )


def test_a_file_has_no_name() -> None:
    result = run(lambda queue: queue.open().close(), "--name", "x", "do", "--queue", "a.db")

    assert (result.exit_code, "and a.db is a file" in result.stderr) == (2, True)


def test_the_address_of_an_engine_is_shown_without_what_is_secret() -> None:
    queue = Queue("redis://user:pass@host:7/0?name=x&sentinel_password=y")

    assert (str(queue), queue.is_file) == ("redis://host:7/0", False)
    assert (str(Queue("/x/events.db")), Queue("/x/events.db").is_file) == ("/x/events.db", True)


def test_an_engine_without_its_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "daemonkit.events.shared.editor", None)
    result = run(lambda queue: queue.open().close(), "do", "--queue", "redis://host/0")

    assert result.exit_code == 3
    assert "pip install 'daemonkit[redis]'" in result.stderr
