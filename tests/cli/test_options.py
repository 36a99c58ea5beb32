from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from daemonkit import ConfigError, Daemon
from daemonkit.cli import options
from daemonkit.cli.options import daemon_options, flag, load_configured
from daemonkit.config.defaults import SETTINGS
from daemonkit.exceptions import LoadError

SHORT = [setting.name for setting in SETTINGS.values() if setting.option]


def test_a_short_form_is_the_setting_s_name_with_dashes() -> None:
    assert [flag(name) for name in SHORT] == ["--host", "--port", "--log-level"]


def test_a_command_gets_every_option_by_name() -> None:
    seen: dict[str, Any] = {}

    @click.command()
    @daemon_options
    def command(**arguments: Any) -> None:
        seen.update(arguments)

    given = ["mod:app", "-c", "x.yaml", "--set", "a=1", "--set", "b=2", "--port", "5"]
    result = CliRunner().invoke(command, given, catch_exceptions=False)

    assert result.exit_code == 0
    assert seen == {
        "app": "mod:app",
        "config": "x.yaml",
        "assignments": ("a=1", "b=2"),
        "host": None,
        "port": "5",
        "log_level": None,
    }


def test_the_configuration_is_in_force_while_the_module_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []

    def load_daemon(target: str) -> Daemon:
        app = Daemon(target, {"a": 0})
        seen.append((app.config["a"], app.master_config["host"]))
        return app

    monkeypatch.setattr(options, "load_daemon", load_daemon)
    app = load_configured("x", None, ("a=1",), {"host": "::1", "port": None})

    assert seen == [(1, "::1")]
    assert (app.config["a"], app.master_config["host"]) == (1, "::1")
    # It is unset after the import.
    assert Daemon(config={"a": 0}).config == {"a": 0}


def test_what_the_module_configures_stays_under_the_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_daemon(target: str) -> Daemon:
        app = Daemon(target, {"a": 0})
        app.configure({"a": 1, "b": 1})
        return app

    monkeypatch.setattr(options, "load_daemon", load_daemon)
    assert load_configured("x", None, ("a=2",), {}).config == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConfigError("wrong", "cfg.yaml", 3), "daemonkit: cfg.yaml:3: wrong\n"),
        (LoadError("no module"), "daemonkit: no module\n"),
        (LoadError("it failed", "Traceback\n"), "Traceback\ndaemonkit: it failed\n"),
    ],
)
def test_an_error_is_one_line_after_the_user_s_traceback(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    text: str,
) -> None:
    def load_daemon(target: str) -> Daemon:
        raise error

    monkeypatch.setattr(options, "load_daemon", load_daemon)
    with pytest.raises(SystemExit) as caught:
        load_configured("x", None, (), {})

    assert caught.value.code == 2
    assert capsys.readouterr().err == text
