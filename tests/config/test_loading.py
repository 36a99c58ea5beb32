from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, Secret
from daemonkit.config.defaults import SETTINGS
from daemonkit.config.loading import (
    COMMAND_LINE,
    CommandLine,
    Config,
    ConfigInForce,
    Override,
    load,
)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes) -> str:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / "cfg.yaml").write_bytes(data)
        return "cfg.yaml"

    return write


@pytest.fixture
def piped() -> Iterator[Callable[[str], str]]:
    """The path of a pipe that holds a text, as `<(...)` gives it."""
    opened: list[int] = []

    def pipe(text: str) -> str:
        reader, writer = os.pipe()
        opened.append(reader)
        os.write(writer, text.encode())
        os.close(writer)
        return f"/dev/fd/{reader}"

    yield pipe
    for reader in opened:
        os.close(reader)


def load_with(*assignments: str, source: Any = None) -> Config:
    return load(source, [Override.parse(assignment) for assignment in assignments])


def error_of(source: Any, *assignments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_with(*assignments, source=source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_without_a_file_the_defaults_are_in_force() -> None:
    config = load()

    assert config.config == {}
    assert config.master == {name: setting.default for name, setting in SETTINGS.items()}
    assert config.master["hidden_opts"] is not SETTINGS["hidden_opts"].default


def test_the_sections_are_parted_and_master_goes_over_the_defaults(written: Any) -> None:
    config = load(written("master:\n  port: 3322\nurl: http://x\nnested: {a: [1]}\n"))

    assert config.config == {"url": "http://x", "nested": {"a": [1]}}
    assert config.master == {**load().master, "port": 3322}


@pytest.mark.parametrize("text", ["", "# nothing\n", "master:\n", "---\n..."])
def test_a_file_that_says_nothing_leaves_the_defaults(written: Any, text: str) -> None:
    assert load(written(text)).master == load().master


DEEP = "[" * 2000 + "]" * 2000
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + previous] * 10)}]\n"
    for previous, name in zip("abcdef", "bcdefg", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nmaster:\n  prot: 1\n",
            "cfg.yaml:3: unknown option 'prot' in master; did you mean 'port'?",
        ),
        (
            "master:\n  port: x\n",
            "cfg.yaml:2: master.port must be an int 0..65535, not 'x' (str)",
        ),
        (
            "master: {port: 65536}",
            "cfg.yaml:1: master.port must be an int 0..65535, not 65536 (int)",
        ),
        (
            "master: {port: -1}",
            "cfg.yaml:1: master.port must be an int 0..65535, not -1 (int)",
        ),
        (
            "master: {port: true}",
            "cfg.yaml:1: master.port must be an int 0..65535, not True (bool)",
        ),
        ("master: {host: 1}", "cfg.yaml:1: master.host must be a string, not empty, not 1 (int)"),
        ("master: {host: ''}", "cfg.yaml:1: master.host must be a string, not empty, not '' (str)"),
        (
            "master: {hidden_opts: a}",
            "cfg.yaml:1: master.hidden_opts must be a list of strings, not 'a' (str)",
        ),
        (
            "master: {hidden_opts: [1]}",
            "cfg.yaml:1: master.hidden_opts must be a list of strings, not [1] (list)",
        ),
        (
            "master: {log_level: loud}",
            "cfg.yaml:1: master.log_level must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, "
            "not 'loud' (str)",
        ),
        (
            "master: {shutdown_timeout: .inf}",
            "cfg.yaml:1: master.shutdown_timeout must be a duration of 0.1..86400 seconds, "
            "such as 30, 500ms, 30s, 5m or 1h, not inf (float)",
        ),
        (
            "master: {juggler_url: nonsense}",
            "cfg.yaml:1: master.juggler_url must be an http or https URL, not 'nonsense' (str)",
        ),
        (
            f"master: {{juggler_timeout: {'9' * 400}}}",
            "cfg.yaml:1: master.juggler_timeout must be a duration of 0.1..3600 seconds, "
            f"such as 30, 500ms, 30s, 5m or 1h, not {'9' * 100}... (int)",
        ),
        ("\n\n- a", "cfg.yaml:3: must be a mapping of options to values, not list"),
        ("a: ййййййй\nb: \x00", "cfg.yaml:2: not valid YAML: special characters are not allowed"),
        ("master: 5", "cfg.yaml:1: master must be a mapping of settings, not int"),
        ("- a", "cfg.yaml:1: must be a mapping of options to values, not list"),
        ("just text", "cfg.yaml:1: must be a mapping of options to values, not str"),
        ("a: 1\nb: 2\na: 3\n", "cfg.yaml:3: the key 'a' stands already in line 1"),
        ("x: {b: 1,\n b: 2}", "cfg.yaml:2: the key 'b' stands already in line 1"),
        (BOMB, "cfg.yaml:1: its aliases expand to more than 100000 values"),
        ("a: &a [*a]", "cfg.yaml:1: an alias must not contain itself"),
        (
            "a: 1\nb: 2024-13-01",
            "cfg.yaml:2: not valid YAML: bad value '2024-13-01': month must be in 1..12",
        ),
        (
            'a: !!float ""',
            "cfg.yaml:1: not valid YAML: bad value '': string index out of range",
        ),
        (
            "a: !!timestamp x",
            "cfg.yaml:1: not valid YAML: bad value 'x': "
            "'NoneType' object has no attribute 'groupdict'",
        ),
        ("\na: " + DEEP, "cfg.yaml:2: nested too deeply"),
        ("a: [1", "cfg.yaml:1: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "cfg.yaml:1: not valid YAML: mapping values are not allowed here"),
        (
            "a: *b",
            "cfg.yaml:1: not valid YAML: found undefined alias 'b'",
        ),
        (
            "a: !!python/name:os.system x",
            "cfg.yaml:1: not valid YAML: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'",
        ),
        (
            "a: 1\n--- \nb: 2",
            "cfg.yaml:2: not valid YAML: but found another document",
        ),
        ("{[1]: 2}", "cfg.yaml:1: not valid YAML: found unhashable key"),
        (b"a: 1\nb: \xff", "cfg.yaml:2: not valid YAML: invalid start byte"),
        ("a: 1\nb: \x00", "cfg.yaml:2: not valid YAML: special characters are not allowed"),
        ("a: !env DK_MISSING", "cfg.yaml:1: the environment variable DK_MISSING is not set"),
        ("a: !env [A, 1, 2]", "cfg.yaml:1: !env takes NAME or [NAME, default]"),
        ("a: !env {}", "cfg.yaml:1: !env takes NAME or [NAME, default]"),
        ("a: !env []", "cfg.yaml:1: !env takes NAME or [NAME, default]"),
        ("a: !secret env:DK_MISSING", "cfg.yaml:1: the environment variable DK_MISSING is not set"),
        (
            "a: !secret file:nowhere",
            "cfg.yaml:1: cannot read the secret file nowhere: No such file or directory",
        ),
        ("a: !secret ''", "cfg.yaml:1: the secret is empty"),
        ("a: !secret [x]", "cfg.yaml:1: !secret takes env:NAME, file:PATH or the text itself"),
        ("master: !secret x", "cfg.yaml:1: master must be a mapping of settings, not Secret"),
        (
            "master: {port: !secret hush}",
            "cfg.yaml:1: master.port must be an int 0..65535, not '*** HIDDEN ***' (Secret)",
        ),
    ],
)
def test_wrong_configuration_is_one_line_with_file_and_line(
    written: Any, text: str | bytes, message: str
) -> None:
    assert error_of(written(text)) == message


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    assert error_of(tmp_path) == f"{tmp_path}: cannot read the configuration: Is a directory"
    assert error_of("nowhere.yaml") == (
        "nowhere.yaml: cannot read the configuration: No such file or directory"
    )
    assert error_of("a\0b") == "a\0b: cannot read the configuration: embedded null byte"


def test_an_option_unlike_any_is_answered_with_the_list_of_all() -> None:
    message = "unknown option 'zzz' in master; the options are " + ", ".join(SETTINGS)
    assert error_of({"master": {"zzz": 1}}) == message


def test_aliases_and_merge_keys_work(written: Any) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, *a], z: 3}\nd: *a\n"

    assert load(written(text)).config == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 2, "z": 3},
        "d": {"x": 1, "y": 1},
    }


def test_a_large_file_without_aliases_is_no_bomb(written: Any) -> None:
    text = "a:\n" + "- 1\n" * 30_000

    assert len(load(written(text)).config["a"]) == 30_000


def test_env_is_typed_as_yaml(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DK_INT", "5152")
    monkeypatch.setenv("DK_LIST", "[a, 1]")
    monkeypatch.setenv("DK_TEXT", "http://x")
    text = (
        "master: {port: !env DK_INT}\n"
        "a: !env DK_LIST\nb: !env [DK_TEXT, 1]\nc: !env [DK_MISSING, [1, x]]\n"
    )
    config = load(written(text))

    assert config.master["port"] == 5152
    assert config.config == {"a": ["a", 1], "b": "http://x", "c": [1, "x"]}


def test_a_variable_that_is_not_yaml_is_named(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DK_BAD", "a: b: c")

    assert error_of(written("a: !env DK_BAD")) == (
        "cfg.yaml:1: environment variable DK_BAD: not valid YAML: mapping values are not allowed here"
    )


def test_a_default_that_is_not_needed_is_not_looked_at(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DK_SET", "x")

    assert load(written("a: !env [DK_SET, !env DK_MISSING]")).config == {"a": "x"}
    assert load(written("a: !env [DK_MISSING, !env DK_SET]")).config == {"a": "x"}


def test_a_wrong_section_of_the_file_is_not_blamed_on_an_option(written: Any) -> None:
    path = written("a: 1\nmaster: [1]\n")

    assert error_of(path, "master.port=1") == (
        "cfg.yaml:2: master must be a mapping of settings, not list"
    )


@pytest.mark.parametrize("source", [5, ["a"]])
def test_what_is_neither_path_nor_mapping_is_refused(source: Any) -> None:
    assert error_of(source).startswith("config must be a file's path or a mapping, not ")


def test_a_variable_cannot_name_another(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DK_TAG", "!env HOME")

    assert "could not determine a constructor" in error_of(written("a: !env DK_TAG"))


def test_secrets_come_from_env_file_and_text(
    written: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DK_TOKEN", "from env")
    (tmp_path / "token").write_text("from file\n")
    text = (
        "a: !secret env:DK_TOKEN\nb: !secret file:token\nc: [{d: !secret plain}]\n"
        f"e: !secret file:{tmp_path}/token\n"
    )
    config = load(written(text))

    assert config.config == {
        "a": "from env",
        "b": "from file",
        "c": [{"d": "plain"}],
        "e": "from file",
    }
    assert isinstance(config.config["a"], Secret)
    assert repr(config.config["a"]) == "'*** HIDDEN ***'"
    assert config.visible()["config"] == {
        "a": "*** HIDDEN ***",
        "b": "*** HIDDEN ***",
        "c": [{"d": "*** HIDDEN ***"}],
        "e": "*** HIDDEN ***",
    }
    assert config.redact("from env, from file and plain") == (
        "*** HIDDEN ***, *** HIDDEN *** and *** HIDDEN ***"
    )


def test_set_overrides_single_values_typed_as_yaml(written: Any) -> None:
    config = load_with(
        "master.port=5152",
        "url=http://x?a=b",
        "a.b.c=[1, 2]",
        "token=!secret hush",
        source=written("url: y\na: {z: 1, b: }\n"),
    )

    assert config.master["port"] == 5152
    assert config.config == {
        "url": "http://x?a=b",
        "a": {"z": 1, "b": {"c": [1, 2]}},
        "token": "hush",
    }
    assert config.redact("hush") == "*** HIDDEN ***"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "--set takes KEY=VALUE with a dotted KEY, not 'a'"),
        ("=1", "--set takes KEY=VALUE with a dotted KEY, not '=1'"),
        ("a..b=1", "--set takes KEY=VALUE with a dotted KEY, not 'a..b=1'"),
        ("a=[", "--set a: not valid YAML: expected the node content, but found '<stream end>'"),
        (
            "master.port=x",
            "--set master.port: master.port must be an int 0..65535, not 'x' (str)",
        ),
        (
            "master.prot=1",
            "--set master.prot: unknown option 'prot' in master; did you mean 'port'?",
        ),
        ("x.y=1", "--set x.y: x is int, not a mapping"),
        ("master=1", "--set master: master must be a mapping of settings, not int"),
    ],
)
def test_a_wrong_override_is_named(assignment: str, message: str) -> None:
    assert error_of({"x": 1}, assignment) == message


def test_the_last_override_wins() -> None:
    assert load_with("a=1", "a=2").config == {"a": 2}


def test_a_mapping_is_copied_and_its_secrets_known() -> None:
    source = {"a": {"b": [Secret("hush")]}, "master": {"port": 0}}
    config = load(source)
    config.config["a"]["b"].append(1)

    assert source == {"a": {"b": ["hush"]}, "master": {"port": 0}}
    assert config.redact("hush") == "*** HIDDEN ***"


def test_a_reload_keeps_old_secrets_redacted_and_names_what_needs_a_restart(written: Any) -> None:
    config = ConfigInForce(None)
    config.load(written("a: !secret old\nmaster: {port: 0}"), [Override.parse("b=1")])
    config.set_address("::", 3322)
    written("a: !secret new\nmaster: {port: 0, queue_size: 5, hidden_opts: [b]}")
    changed = config.reload()

    assert changed == ["master.queue_size"]
    assert config.now.config == {"a": "new", "b": 1}
    assert config.redact("old new") == "*** HIDDEN *** *** HIDDEN ***"
    assert config.now.master == {**load().master, "port": 3322, "hidden_opts": ["b"]}


def test_a_wrong_reload_leaves_everything_as_it_was(written: Any) -> None:
    config = ConfigInForce(written("a: 1"))
    before = config.now
    written("a: [")

    with pytest.raises(ConfigError):
        config.reload()
    assert config.now is before


def test_what_is_shown_hides_what_hidden_opts_name() -> None:
    config = load(
        {
            "master": {"hidden_opts": ["yt_token", "password", "a.key", "master.juggler_url"]},
            "yt_token": "AAAA",
            "other_tokens": {"password": "shown"},
            "a": {"key": [1], "other": 2},
        }
    )
    shown = config.visible()

    assert shown["config"] == {
        "yt_token": "*** HIDDEN ***",
        "other_tokens": {"password": "shown"},
        "a": {"key": "*** HIDDEN ***", "other": 2},
    }
    assert shown["master_config"] == {**config.master, "juggler_url": "*** HIDDEN ***"}


def test_the_drain_delay_is_a_part_of_the_shutdown_timeout(written: Any) -> None:
    assert load({"master": {"drain_delay": 24.9}}).master["drain_delay"] == 24.9
    assert error_of({"master": {"drain_delay": 25}}) == (
        "master.drain_delay must be less than master.shutdown_timeout (25), "
        "of which it is a part, not 25 (int)"
    )
    path = written("master:\n  shutdown_timeout: 5\n  drain_delay: 7\n")
    assert error_of(path).startswith(f"{path}:3: master.drain_delay must be less than master.")


def test_what_can_be_read_only_once_is_kept(
    piped: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token").write_text("first")
    secret, token = piped("hush\n"), piped("quiet")
    # Relative to the current folder: a pipe lies in none.
    path = piped(f"a: 1\nb: !secret file:{secret}\nc: !secret file:token\n")
    app = Daemon(config=path)
    expected = {"a": 1, "b": "hush", "c": "first", "d": "quiet"}

    assert app.config == {"a": 1, "b": "hush", "c": "first"}
    app.configure(overrides=[Override.parse(f"d=!secret file:{token}")])
    assert app.config == expected
    (tmp_path / "token").write_text("second")
    assert app._config.reload() == []
    assert app.config == {**expected, "c": "second"}
    assert app._config.read_once == [path, secret, token]


@pytest.mark.parametrize("on_command_line", [True, False])
def test_a_pipe_is_read_once_for_all_daemons_of_a_command_line(
    piped: Callable[[str], str], on_command_line: bool
) -> None:
    path = piped("a: 1")
    token = COMMAND_LINE.set(CommandLine(path if on_command_line else None, ()))
    try:
        apps = [Daemon(config={"a": 0} if on_command_line else path) for _ in range(2)]
    finally:
        COMMAND_LINE.reset(token)

    assert [app.config for app in apps] == [{"a": 1}] * 2


def test_a_file_is_read_again_whatever_leads_to_it(written: Any, tmp_path: Path) -> None:
    with (tmp_path / written("a: 1")).open() as file:
        config = ConfigInForce(f"/dev/fd/{file.fileno()}")
        before = config.now.config
        written("a: 2")
        config.reload()

    assert (before, config.now.config) == ({"a": 1}, {"a": 2})
    assert config.read_once == []
