from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError
from daemonkit.config.children import LONGEST, VARIABLE, hand_down, handed_down
from daemonkit.config.in_force import ConfigInForce
from daemonkit.config.loading import Given, Override

OVERRIDES = Override.parse("a=1"), Override("master.host", "::", "--host", raw=True)


@pytest.fixture
def importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Call a function while a module is being imported."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "dk_importing.py").write_text("import sys\nresult = sys.dk_call()\n")

    def call(function: Callable[[], Any]) -> Any:
        monkeypatch.setattr(sys, "dk_call", function, raising=False)
        monkeypatch.delitem(sys.modules, "dk_importing", raising=False)
        return import_module("dk_importing").result

    yield call
    sys.modules.pop("dk_importing", None)


@pytest.fixture
def _child(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if multiprocessing had started this process, for its parent."""
    monkeypatch.setattr("daemonkit.config.children._is_child_of", os.getppid().__eq__)


def handed(given: Given) -> dict[str, str]:
    """The environment of a child, as if this process were its parent's."""
    environ: dict[str, str] = {}
    hand_down(given, environ)
    pid, _, text = environ[VARIABLE].partition(" ")
    assert int(pid) == os.getpid()
    return {VARIABLE: f"{os.getppid()} {text}"}


@pytest.mark.usefixtures("_child")
def test_what_was_given_reaches_a_child_s_import(
    importing: Callable[..., Any], tmp_path: Path
) -> None:
    given = Given("cfg.yaml", OVERRIDES, folder=tmp_path)
    environ = handed(given)
    found = importing(lambda: handed_down(environ))

    assert (found.source, found.overrides) == (str(tmp_path / "cfg.yaml"), OVERRIDES)
    assert (found.folder, found.overlay) == (tmp_path, None)
    assert importing(lambda: handed_down(handed(Given(None)))).source is None


@pytest.mark.usefixtures("_child")
def test_a_regular_file_behind_a_descriptor_is_handed_down_by_its_name(
    importing: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("a: 1")
    with path.open() as file:
        environ = handed(Given(f"/dev/fd/{file.fileno()}"))

    assert importing(lambda: handed_down(environ)).source == str(path)


@pytest.mark.usefixtures("_child")
def test_only_daemons_that_are_made_by_an_import_are_configured() -> None:
    assert handed_down(handed(Given(None, OVERRIDES))) is None


@pytest.mark.usefixtures("_child")
def test_what_is_too_long_to_hand_down_is_an_error(importing: Callable[..., Any]) -> None:
    environ = handed(Given(None, (Override.parse("a=" + "x" * LONGEST),)))

    assert len(environ[VARIABLE]) < 20
    with pytest.raises(ConfigError, match="too long for the processes that multiprocessing starts"):
        importing(lambda: handed_down(environ))


@pytest.mark.parametrize("text", ["", "x", "1", "1 []", "{own} []"])
def test_other_processes_ignore_the_variable(importing: Callable[..., Any], text: str) -> None:
    assert importing(lambda: handed_down({VARIABLE: text.format(own=os.getpid())})) is None


@pytest.mark.usefixtures("_child")
def test_the_command_line_wins_over_what_a_child_s_import_configures(
    importing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, handed(Given(None, OVERRIDES))[VARIABLE])

    def configured() -> ConfigInForce:
        config = ConfigInForce({"a": 0})
        config.load(Given({"a": 2, "b": 2}))
        return config

    assert importing(configured).now.config == {"a": 1, "b": 2}


def test_a_start_does_not_import_multiprocessing() -> None:
    code = "import daemonkit.cli.run, sys; print('multiprocessing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout == "False\n"
