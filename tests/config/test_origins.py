from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from daemonkit.config.loading import Given, Override, load
from daemonkit.config.origins import shown_options

TEXT = """\
master:
    port: 1
    hidden_opts: [password]
    tokens: {shop: !secret token-of-the-shop}
    intake: [http]
url: http://x
database:
    host: db
    pool: {size: 5}
password: hush
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("cfg.yaml").write_text(TEXT)
    return "cfg.yaml"


def shown(
    source: Any, *options: Override, overlay: Mapping[str, Any] | None = None
) -> dict[str, tuple[Any, str]]:
    found = shown_options(load(Given(source, options, overlay)))
    return {key: (value, origin) for key, value, origin in found}


def test_each_value_has_its_line(file: str) -> None:
    found = shown(file)

    assert list(found)[:6] == [
        "url",
        "database.host",
        "database.pool.size",
        "password",
        "master.host",
        "master.port",
    ]
    assert found["url"] == ("http://x", "cfg.yaml:6")
    assert found["database.pool.size"] == (5, "cfg.yaml:9")
    assert found["master.port"] == (1, "cfg.yaml:2")
    assert found["master.host"] == ("::", "default")
    assert found["master.hidden_opts"] == (["password"], "cfg.yaml:3")


def test_what_is_hidden_has_an_origin_too(file: str) -> None:
    found = shown(file)

    assert found["password"] == ("*** HIDDEN ***", "cfg.yaml:10")
    assert found["master.tokens.shop"] == ("*** HIDDEN ***", "cfg.yaml:4, secret")


def test_the_command_line_is_named_by_its_option(file: str) -> None:
    found = shown(
        file,
        Override.parse("database={name: x, pool: {size: 6}}"),
        Override.parse("new.key=[1]"),
        Override("master.port", "2", "--port"),
    )

    assert found["database.pool.size"] == (6, "--set")
    assert found["new.key"] == ([1], "--set")
    assert found["master.port"] == (2, "--port")
    assert found["url"] == ("http://x", "cfg.yaml:6")
    assert "database.host" not in found


def test_a_whole_section_may_come_from_the_command_line(file: str) -> None:
    found = shown(file, Override.parse("master={port: 3}"))

    assert found["master.port"] == (3, "--set")
    assert found["master.intake"] == (["http", "udp"], "default")


def test_mappings_are_the_program_s(file: str) -> None:
    found = shown(file, overlay={"database": {"host": "test"}, "master": {"port": 0}})

    assert found["database.host"] == ("test", "the program")
    assert found["master.port"] == (0, "the program")
    assert found["database.pool.size"] == (5, "cfg.yaml:9")
    assert shown({"a": {}, "b": {"c": None}})["a"] == ({}, "the program")


def test_without_a_configuration_all_are_defaults() -> None:
    assert {origin for _, origin in shown(None).values()} == {"default"}
