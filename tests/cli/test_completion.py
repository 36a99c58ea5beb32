from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from daemonkit.cli.completion import modules
from daemonkit.cli.group import COMMANDS, group

FILE = "(a file)"


def completed(*words: str) -> list[str]:
    """What the shell offers for the last word."""
    *arguments, incomplete = words
    shell = BashComplete(group, {}, "daemonkit", "_DAEMONKIT_COMPLETE")
    found = shell.get_completions(list(arguments), incomplete)
    return [FILE if item.type == "file" else item.value for item in found]


def test_commands_are_completed() -> None:
    assert completed("") == list(COMMANDS)
    assert completed("st") == ["status"]
    assert completed("ctl", "re") == ["reload", "replace", "restart", "resume", "retry"]


def test_log_levels_are_completed() -> None:
    assert completed("ctl", "level", "d") == ["DEBUG", "DEFAULT"]
    assert completed("run", "mymod", "--log-level", "") == [
        "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--config", ""],
        ["run", "docs/"],
        ["send", "ev"],
        ["send", "--config", ""],
        ["ping", "--token-file", ""],
        ["events", "list", "--queue", ""],
        ["events", "import", ""],
    ],
)
def test_names_of_files_are_left_to_the_shell(words: list[str]) -> None:
    assert completed(*words) == [FILE]


def test_modules_are_those_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "billing.py",
        "bank.py",
        "two.words.py",
        "a-b.py",
        "notes.txt",
        "pkg/__init__.py",
        "data/x.py",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("")

    assert modules(".") == ["bank", "billing", "pkg"]
    for command in ("run", "systemd"):
        assert completed(command, "b") == ["bank", "billing"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_and_answers(shell: str) -> None:
    def ask(instruction: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from daemonkit.cli import main\nmain('daemonkit')"],
            env={**os.environ, "_DAEMONKIT_COMPLETE": f"{shell}_{instruction}", **variables},
            capture_output=True,
            text=True,
        )
        assert done.stderr == ""
        return done.stdout

    assert "_DAEMONKIT_COMPLETE" in ask("source")
    words = {"COMP_WORDS": "daemonkit sta", "COMP_CWORD": "1"}
    if shell == "fish":
        words["COMP_CWORD"] = "sta"
    assert "status" in ask("complete", **words)


def test_bash_completes_with_its_script(tmp_path: Path) -> None:
    (tmp_path / "daemonkit").write_text(f'#!/bin/sh\nexec {sys.executable} -m daemonkit "$@"\n')
    (tmp_path / "daemonkit").chmod(0o755)
    script = (
        'eval "$(_DAEMONKIT_COMPLETE=bash_source daemonkit)"\n'
        "COMP_WORDS=(daemonkit ctl level w) COMP_CWORD=3\n"
        '_daemonkit_completion daemonkit w level\necho "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )

    assert done.stdout == "WARNING\n"
