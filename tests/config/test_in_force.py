from __future__ import annotations

import threading
from asyncio import CancelledError
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, RegistrationError, Secret
from daemonkit.config import in_force
from daemonkit.config.in_force import COMMAND_LINE, ConfigInForce, Reload, bind_config
from daemonkit.config.loading import Config, Given, Override, load


def test_a_reload_keeps_old_secrets_redacted_and_names_what_needs_a_restart(written: Any) -> None:
    config = ConfigInForce(None)
    config.load(Given(written("a: !secret old\nmaster: {port: 0}"), (Override.parse("b=1"),)))
    config.set_address("::", 3322)
    written("a: !secret new\nmaster: {port: 0, queue_size: 5, hidden_opts: [b]}")
    changed = config.reload().needs_restart

    assert changed == ["master.queue_size"]
    assert config.now.config == {"a": "new", "b": 1}
    assert config.redact("old new") == "*** HIDDEN *** *** HIDDEN ***"
    assert config.now.master == {**load(Given()).master, "port": 3322, "hidden_opts": ["b"]}


def test_a_failed_reload_changes_nothing(written: Any) -> None:
    config = ConfigInForce(written("a: 1"))
    before = config.now
    written("a: [")

    with pytest.raises(ConfigError):
        config.reload()
    assert config.now is before


def test_files_that_can_be_read_only_once_are_kept(
    piped: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("first")
    secret, token = piped("hush\n"), piped("quiet")
    # Relative to the current folder: a pipe is in no folder.
    path = piped(f"a: 1\nb: !secret file:{secret}\nc: !secret file:token\n")
    app = Daemon(config=path)
    expected = {"a": 1, "b": "hush", "c": "first", "d": "quiet"}

    assert app.config == {"a": 1, "b": "hush", "c": "first"}
    app.configure(overrides=[Override.parse(f"d=!secret file:{token}")])
    assert app.config == expected
    (tmp_path / "token").write_text("second")
    assert app._config.reload().needs_restart == []
    assert app.config == {**expected, "c": "second"}
    assert app._config.read_once == [path, secret, token]


@pytest.mark.parametrize("on_command_line", [True, False])
def test_a_pipe_is_read_once_for_all_daemons_of_a_command_line(
    piped: Callable[[str], str], on_command_line: bool
) -> None:
    path = piped("a: 1")
    token = COMMAND_LINE.set(Given(path if on_command_line else None))
    try:
        apps = [Daemon(config={"a": 0} if on_command_line else path) for _ in range(2)]
    finally:
        COMMAND_LINE.reset(token)

    assert [app.config for app in apps] == [{"a": 1}] * 2


def test_a_regular_file_is_read_again_by_any_path(written: Any, tmp_path: Path) -> None:
    with (tmp_path / written("a: 1")).open() as file:
        config = ConfigInForce(f"/dev/fd/{file.fileno()}")
        before = config.now.config
        written("a: 2")
        config.reload()

    assert (before, config.now.config) == ({"a": 1}, {"a": 2})
    assert config.read_once == []


def test_a_reload_does_not_depend_on_the_current_folder(
    written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("hush")
    config = ConfigInForce(written("master: {queue: q.db}"))
    overrides = [Override.parse(f"{key}=!secret file:token") for key in ("a", "b")]
    config.load(Given(None, (*overrides, Override.parse("master.log_file=a.log"))))
    before = config.now
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert config.reload().needs_restart == []
    assert config.now.master == before.master
    assert config.now.config == {"a": "hush", "b": "hush"}


def test_paths_of_the_command_line_and_of_a_module_count_from_their_own_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "cfg.yaml").write_text("a: 1")
    token = COMMAND_LINE.set(Given(None, (Override.parse("master.queue=q.db"),)))
    monkeypatch.chdir("sub")
    try:
        config = ConfigInForce("cfg.yaml")
    finally:
        COMMAND_LINE.reset(token)
    monkeypatch.chdir("/")

    assert config.now.config == {"a": 1}
    assert config.settings.queue == str(tmp_path / "q.db")


def test_the_last_source_that_was_given_stays_over_later_overrides() -> None:
    config = ConfigInForce({"a": 1})
    config.load(Given({"b": 2}))
    config.load(Given(None, (Override.parse("c=3"),)))

    assert config.now.config == {"b": 2, "c": 3}


def test_a_report_of_a_reload_names_what_could_not_change() -> None:
    assert Reload([], [], [], has_file=True).report() == []
    assert Reload(
        ["master.a", "master.b"], ["url", "b"], ["/dev/fd/3"], has_file=False
    ).report() == [
        (30, "Changed, but in force only after a restart: master.a, master.b"),
        (30, "There is no configuration file to read again"),
        (20, "Fixed by the command line: url, b"),
        (30, "/dev/fd/3 can't be read again; its first content stays in force"),
    ]


@pytest.mark.parametrize(("source", "has_file"), [(None, False), ({}, False), ("file", True)])
def test_a_reload_without_a_file_says_so(written: Any, source: Any, has_file: bool) -> None:
    path = written("a: 1")
    config = ConfigInForce(path if source == "file" else source)
    config.load(Given(None, (Override.parse("b=1"),)))

    assert config.reload() == Reload([], ["b"], [], has_file)


def test_the_configuration_is_loaded_once_however_many_threads_need_it_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loads: list[Config] = []
    pause = threading.Event()

    def slow(*arguments: Any, **options: Any) -> Config:
        loads.append(load(Given()))
        pause.wait(0.05)
        return loads[-1]

    monkeypatch.setattr(in_force, "load", slow)
    config, seen = ConfigInForce(None), []
    threads = [threading.Thread(target=lambda: seen.append(config.now)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(loads) == 1
    assert [found is loads[0] for found in seen] == [True] * 3


def needs_url(config: dict[str, Any], master_config: dict[str, Any]) -> None:
    if "url" not in config:
        raise ValueError(f"no url\nfor port {master_config['port']}")


def test_validators_see_the_configuration_and_the_one_of_every_reload(written: Any) -> None:
    config, seen = ConfigInForce(written("a: 1\nmaster: {port: 5}")), []
    config.validate([lambda config, master: seen.append((config, master["port"]))])
    written("a: 2\nmaster: {port: 6}")
    config.reload()

    # The port needs a restart.
    assert seen == [({"a": 1}, 5), ({"a": 2}, 5)]


def test_an_exception_in_a_validator_is_a_configuration_error_in_one_line(written: Any) -> None:
    message = r"needs_url() refused the configuration: ValueError: no url for port 5151"
    with pytest.raises(ConfigError) as caught:
        ConfigInForce({"a": 1}).validate([needs_url])
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        ConfigInForce(written("a: 1")).validate([needs_url])
    assert str(caught.value) == f"cfg.yaml: {message}"


def test_a_reload_that_a_validator_refuses_is_not_in_force(written: Any) -> None:
    config = ConfigInForce(written("url: x"))
    config.validate([needs_url])
    before = config.now
    written("a: 1")

    with pytest.raises(ConfigError, match="needs_url"):
        config.reload()
    assert config.now is before


def test_a_validator_s_own_configuration_error_is_not_wrapped() -> None:
    def check(config: dict[str, Any], master_config: dict[str, Any]) -> None:
        raise ConfigError("give a url")

    with pytest.raises(ConfigError, match="^give a url$"):
        ConfigInForce(None).validate([check])


@pytest.mark.parametrize("error", [CancelledError, KeyboardInterrupt, GeneratorExit, SystemExit])
def test_whatever_a_validator_raises_refuses_the_configuration(error: type[BaseException]) -> None:
    def check(config: dict[str, Any], master_config: dict[str, Any]) -> None:
        raise error

    with pytest.raises(ConfigError, match=rf"^check\(\) refused .*: {error.__name__}$"):
        ConfigInForce(None).validate([check])


@pytest.mark.parametrize("error", [ValueError, ConfigError])
def test_a_secret_that_a_validator_names_is_redacted(error: type[Exception]) -> None:
    def check(config: dict[str, Any], master_config: dict[str, Any]) -> None:
        raise error(f"{config['token']} is too short")

    with pytest.raises(ConfigError) as caught:
        ConfigInForce({"token": Secret("hush")}).validate([check])
    assert "hush" not in str(caught.value)
    assert "*** HIDDEN *** is too short" in str(caught.value)


def test_a_validator_that_returns_unrun_work_is_refused() -> None:
    def check(config: dict[str, Any], master_config: dict[str, Any]) -> Generator[int, None, None]:
        yield 1

    with pytest.raises(ConfigError, match="TypeError: it returned a generator"):
        ConfigInForce(None).validate([check])


def test_the_configuration_can_be_read_while_a_validator_runs() -> None:
    config, seen = ConfigInForce({"a": 1}), []

    def check(_config: dict[str, Any], _master_config: dict[str, Any]) -> None:
        reader = threading.Thread(target=lambda: seen.append(config.now.config))
        reader.start()
        reader.join(5)

    config.validate([check])
    config.reload()
    assert seen == [{"a": 1}, {"a": 1}]


@pytest.fixture
def _command_line() -> Any:
    token = COMMAND_LINE.set(Given(overrides=(Override.parse("a=2"),), overlay={"b": 3}))
    yield
    COMMAND_LINE.reset(token)


@pytest.mark.usefixtures("_command_line")
def test_an_overlay_of_the_command_line_overrides_the_constructor_s() -> None:
    assert ConfigInForce({"a": 1, "b": 1, "c": 1}).now.config == {"a": 2, "b": 3, "c": 1}


def bare() -> Any:
    return "bare"


def with_config(config: dict[str, Any]) -> Any:
    return config


def optional(config: Mapping[str, Any] | None = None) -> Any:
    return config


def unrelated(debug: bool = False) -> Any:
    return debug


@pytest.mark.usefixtures("_command_line")
@pytest.mark.parametrize(
    ("factory", "result"),
    [
        (bare, "bare"),
        (with_config, {"a": 2, "b": 3}),
        (optional, {"a": 2, "b": 3}),
        (unrelated, False),
        (dict, {}),
    ],
)
def test_a_factory_that_takes_a_parameter_gets_the_configuration(
    factory: Callable[..., Any], result: Any
) -> None:
    assert bind_config(factory, "run")() == result


def test_the_parameters_of_a_class_are_its_own() -> None:
    assert bind_config(Daemon, "run")().name == "Daemon"


def test_a_factory_with_more_parameters_is_refused() -> None:
    with pytest.raises(RegistrationError) as caught:
        bind_config(lambda a, b: None, "daemonkit run")

    assert str(caught.value) == (
        "daemonkit run takes a function that can be called with () or (config), not <lambda>(a, b)"
    )


def test_the_format_of_the_log_is_that_in_force_and_text_before() -> None:
    config = ConfigInForce({"master": {"log_format": "json"}})
    wrong = ConfigInForce({"master": {"log_format": "json", "port": "x"}})
    with pytest.raises(ConfigError):
        wrong.load()
    before = config.log_format
    config.load()

    assert (before, config.log_format, wrong.log_format) == ("text", "json", "text")
