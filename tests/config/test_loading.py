from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Secret
from daemonkit.config import loading
from daemonkit.config.defaults import SETTINGS
from daemonkit.config.loading import Config, Given, Override
from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import redact


def load(source: Any = None, *overrides: Override, overlay: Any = None) -> Config:
    return loading.load(Given(source, overrides, overlay))


def load_with(*assignments: str, source: Any = None) -> Config:
    return load(source, *map(Override.parse, assignments))


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


def test_master_is_separated_and_merged_over_the_defaults(written: Any) -> None:
    config = load(written("master:\n  port: 3322\nurl: http://x\nnested: {a: [1]}\n"))

    assert config.config == {"url": "http://x", "nested": {"a": [1]}}
    assert config.master == {**load().master, "port": 3322}


@pytest.mark.parametrize("text", ["", "# nothing\n", "master:\n", "---\n..."])
def test_a_file_without_settings_leaves_the_defaults(written: Any, text: str) -> None:
    assert load(written(text)).master == load().master


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
        (
            "master: {host: 1}",
            "cfg.yaml:1: master.host must be an address, or unix: and an absolute path, not 1 (int)",
        ),
        (
            "master: {host: ''}",
            "cfg.yaml:1: master.host must be an address, or unix: and an absolute path, not '' (str)",
        ),
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
        *(
            (
                f"master: {{juggler_url: {url}}}",
                f"cfg.yaml:1: master.juggler_url must be an http or https URL, not {url} (str)",
            )
            for url in ("'http://a b/'", "'http://a:99999/'", "'http://a:x/'", "'http:///x'")
        ),
        *(
            (
                f"master: {{juggler_url: {url}}}",
                "cfg.yaml:1: master.juggler_url must be an http or https URL; it isn't shown here, "
                "since it may have a password",
            )
            for url in ("user:hush@host/x", "ftp:user:hush@host", "['http://a:hush@b']", "{a@b: 1}")
        ),
        (
            f"master: {{juggler_timeout: {'9' * 400}}}",
            "cfg.yaml:1: master.juggler_timeout must be a duration of 0.1..3600 seconds, "
            f"such as 30, 500ms, 30s, 5m or 1h, not {'9' * 100}... (int)",
        ),
        ("\n\n- a", "cfg.yaml:3: must be a mapping of options to values, not list"),
        ("master: 5", "cfg.yaml:1: master must be a mapping of settings, not int"),
        ("- a", "cfg.yaml:1: must be a mapping of options to values, not list"),
        ("just text", "cfg.yaml:1: must be a mapping of options to values, not str"),
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


def test_an_option_unlike_any_other_gets_the_list_of_all() -> None:
    message = "unknown option 'zzz' in master; the options are " + ", ".join(SETTINGS)
    assert error_of({"master": {"zzz": 1}}) == message


def test_an_error_in_the_file_does_not_name_an_option(written: Any) -> None:
    path = written("a: 1\nmaster: [1]\n")

    assert error_of(path, "master.port=1") == (
        "cfg.yaml:2: master must be a mapping of settings, not list"
    )


@pytest.mark.parametrize("source", [5, ["a"]])
def test_a_source_that_is_neither_path_nor_mapping_is_refused(source: Any) -> None:
    assert error_of(source).startswith("config must be a file's path or a mapping, not ")


def test_an_empty_path_is_refused() -> None:
    assert error_of("") == "the path of the configuration file is empty"


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
    assert redact("hush") == "*** HIDDEN ***"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a", "--set takes KEY=VALUE with a dotted KEY, not 'a'"),
        ("=1", "--set takes KEY=VALUE with a dotted KEY, not '=1'"),
        ("a..b=1", "--set takes KEY=VALUE with a dotted KEY, not 'a..b=1'"),
        (
            "a !secret hush",
            "--set takes KEY=VALUE with a dotted KEY, not 'a !secret *** HIDDEN ***'",
        ),
        (
            "a !secrethush",
            "--set takes KEY=VALUE with a dotted KEY, not 'a !secret *** HIDDEN ***'",
        ),
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
def test_an_invalid_override_is_named(assignment: str, message: str) -> None:
    assert error_of({"x": 1}, assignment) == message


def test_an_address_is_not_taken_for_a_mapping() -> None:
    assert load_with("master.host=::").settings.host == "::"
    assert load_with("a=- x", "b={c: 1}").config == {"a": "- x", "b": {"c": 1}}
    assert load_with("a=b: !secret hush").config == {"a": {"b": "hush"}}


@pytest.mark.parametrize(
    "queue", [":memory:", "file:x.db", "file::memory:?cache=shared", "sqlite:///x.db"]
)
def test_a_queue_that_is_not_a_file_is_refused(queue: str) -> None:
    assert error_of({"master": {"queue": queue}}) == (
        "master.queue must be a file's path or a redis:// address or null, such as events.db (or left out, to keep "
        f"events in memory), not {queue!r} (str)"
    )


def test_the_last_override_wins() -> None:
    assert load_with("a=1", "a=2").config == {"a": 2}


def test_a_mapping_is_copied_and_its_secrets_known() -> None:
    source = {"a": {"b": [Secret("hush")]}, "master": {"port": 0}}
    config = load(source)
    config.config["a"]["b"].append(1)

    assert source == {"a": {"b": ["hush"]}, "master": {"port": 0}}
    assert redact("hush") == "*** HIDDEN ***"


@pytest.mark.parametrize("pattern", ["*", "**", "master", "m*"])
def test_all_of_the_section_master_can_be_hidden(pattern: str) -> None:
    shown = load({"a": 1, "master": {"hidden_opts": [pattern]}}).visible()

    assert set(shown["master_config"].values()) == {"*** HIDDEN ***"}
    assert shown["master_config"].keys() == SETTINGS.keys()
    assert shown["config"] == {"a": "*** HIDDEN ***" if pattern[0] == "*" else 1}


def test_the_visible_configuration_hides_what_hidden_opts_name() -> None:
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


def test_a_secret_is_hidden_wherever_it_is(written: Any) -> None:
    config = load(written("a: !secret one\nb: [{c: !secret two}]\n"))

    assert config.visible()["config"] == {"a": "*** HIDDEN ***", "b": [{"c": "*** HIDDEN ***"}]}
    assert redact("one and two") == "*** HIDDEN *** and *** HIDDEN ***"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The current folder, and another one with a configuration `cfg.yaml`."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    monkeypatch.chdir(here)
    (there / "cfg.yaml").write_text("master: {queue: q.db, log_file: logs/a.log}\n")
    return here, there


def test_a_path_in_the_file_is_relative_to_the_file_s_folder(folders: tuple[Path, Path]) -> None:
    _, there = folders
    settings = load("../there/cfg.yaml").settings
    absolute = load({"master": {"queue": "/run/q.db"}}).settings

    assert Path(settings.queue or "").resolve() == there / "q.db"
    assert Path(settings.log_file or "").resolve() == there / "logs" / "a.log"
    assert absolute.queue == "/run/q.db"


def test_a_file_named_by_its_descriptor_is_in_its_own_folder(folders: tuple[Path, Path]) -> None:
    _, there = folders
    with (there / "cfg.yaml").open() as file:
        queue = load(f"/dev/fd/{file.fileno()}").settings.queue

    assert queue == str(there / "q.db")


def test_other_paths_are_relative_to_the_current_folder(
    folders: tuple[Path, Path], piped: Callable[[str], str]
) -> None:
    here, there = folders
    expected = str(here / "q2.db")
    file, pipe = there / "cfg.yaml", piped("master: {queue: q2.db}")

    assert load({"master": {"queue": "q2.db"}}).settings.queue == expected
    assert load(pipe).settings.queue == expected
    for assignment in ("master.queue=q2.db", "master={queue: q2.db}"):
        assert load_with(assignment, source=file).settings.queue == expected
    assert load(file, overlay={"master": {"queue": "q2.db"}}).settings.queue == expected
    assert load_with("master.port=1", source=file).settings.queue == str(there / "q.db")


def test_a_secret_path_stays_a_secret() -> None:
    config = load({"master": {"queue": Secret("q.db")}})

    assert config.visible()["master_config"]["queue"] == "*** HIDDEN ***"


def test_only_relative_paths_fail_in_a_removed_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    (tmp_path / "cfg.yaml").write_text("a: 1")

    assert load(tmp_path / "cfg.yaml").config == {"a": 1}
    assert error_of("cfg.yaml").endswith("No such file or directory")


def test_an_overlay_is_merged_key_by_key(written: Any) -> None:
    path = written("master: {port: 1, queue_size: 5}\ndb: {url: x, tags: [1]}\n")
    overlay = {"master": {"port": 2}, "db": {"tags": [2], "token": Secret("hush")}}
    config = load(path, overlay=overlay)

    assert (config.settings.port, config.settings.queue_size) == (2, 5)
    assert config.config == {"db": {"url": "x", "tags": [2], "token": "hush"}}
    assert redact("hush") == "*** HIDDEN ***"


@pytest.mark.parametrize("overlay", [{"master": {"port": "x"}}, {"master": 5}])
def test_an_error_in_an_overlay_does_not_name_the_file(written: Any, overlay: Any) -> None:
    with pytest.raises(ConfigError, match="^master"):
        load(written("master: {port: 1}"), overlay=overlay)


def test_an_error_in_an_override_of_the_section_does_not_name_the_file(
    written: Any,
) -> None:
    assert error_of(written("master: {port: 1}"), "master={port: x}") == (
        "--set master: master.port must be an int 0..65535, not 'x' (str)"
    )


def test_units_are_numbers_once_loaded() -> None:
    config = load_with("master.queue_max_disk=10MiB", "master.shutdown_timeout=5m")
    shown = config.visible()["master_config"]

    assert (shown["queue_max_disk"], shown["shutdown_timeout"]) == (10 * 2**20, 300)


def test_a_url_that_is_a_secret_is_hidden_as_a_whole() -> None:
    config = load({"master": {"juggler_url": Secret("http://host/hush")}})

    assert isinstance(config.settings.juggler_url, Secret)
    assert config.visible()["master_config"]["juggler_url"] == HIDDEN


def test_the_password_in_a_setting_s_url_is_hidden_and_known_as_a_secret() -> None:
    url = "http://user:a%20long%20one@host/"
    config = load({"master": {"juggler_url": url}})

    assert config.settings.juggler_url == url
    assert config.visible()["master_config"]["juggler_url"] == f"http://user:{HIDDEN}@host/"
    assert redact("a%20long%20one, a long one") == f"{HIDDEN}, {HIDDEN}"
    # Too short to be searched for in texts.
    shown = load({"master": {"juggler_url": "http://user:pw@host/"}}).visible()
    assert shown["master_config"]["juggler_url"] == f"http://user:{HIDDEN}@host/"
