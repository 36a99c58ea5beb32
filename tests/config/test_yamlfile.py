from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Secret
from daemonkit.config.files import Files
from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import redact
from daemonkit.config.yamlfile import Document, parse_file


def parsed(path: str) -> Document:
    return parse_file(path, "master", Files(), Path.cwd())


def error_of(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


DEEP = "[" * 500 + "]" * 500
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + previous] * 10)}]\n"
    for previous, name in zip("abcdef", "bcdefg", strict=True)
)


LEADING_ZERO = (
    "a number that begins with 0 is ambiguous: quote it if it is a text; otherwise begin it with "
    "0o if it is octal, or leave out the 0"
)
COLONS = "a number with colons is ambiguous: quote it, or write it without them"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ййййййй\nb: \x00", "cfg.yaml:2: not valid YAML: special characters are not allowed"),
        ("a: 1\nb: 2\na: 3\n", "cfg.yaml:3: duplicate key 'a' (first defined on line 1)"),
        ("x: {b: 1,\n b: 2}", "cfg.yaml:2: duplicate key 'b' (first defined on line 1)"),
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
        ("a: 1\nb: 017000", f"cfg.yaml:2: {LEADING_ZERO}"),
        ("a: [-0_17]", f"cfg.yaml:1: {LEADING_ZERO}"),
        ("017: x", f"cfg.yaml:1: {LEADING_ZERO}"),
        ("a: 22:22", f"cfg.yaml:1: {COLONS}"),
        ("a: 1:30.5", f"cfg.yaml:1: {COLONS}"),
        ("a: !secret ''", "cfg.yaml:1: the secret is empty"),
        ("a: !secret 'env:'", "cfg.yaml:1: !secret env: needs a name behind it"),
        ("a: !secret 'file:'", "cfg.yaml:1: !secret file: needs a name behind it"),
        ("a: !secret [x]", "cfg.yaml:1: !secret takes env:NAME, file:PATH or the text itself"),
    ],
)
def test_wrong_yaml_is_one_line_with_file_and_line(
    written: Any, text: str | bytes, message: str
) -> None:
    assert error_of(written(text)) == message


def test_a_document_has_the_lines_of_its_keys(written: Any) -> None:
    document = parsed(written("\nmaster:\n  port: 1\n  host: x\nurl: {a: 1}\n"))

    assert document.lines == {"master": 2, "master.port": 3, "master.host": 4, "url": 5}
    assert document.line == 2


def test_aliases_and_merge_keys_work(written: Any) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, *a], z: 3}\nd: *a\n"

    assert parsed(written(text)).value == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 2, "z": 3},
        "d": {"x": 1, "y": 1},
    }


def test_a_large_file_without_aliases_is_not_a_bomb(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.config.yamlfile.MAX_EXPANDED", 1000)
    text = "a:\n" + "- 1\n" * 3000

    assert len(parsed(written(text)).value["a"]) == 3000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{on: 1, Off: 2, yes: 3, NO: 4}", {"on": 1, "Off": 2, "yes": 3, "NO": 4}),
        ("on:\n  push: yes", {"on": {"push": True}}),
        ("{!env NO: 1}", {"text": 1}),
        ("{true: 1}", {True: 1}),
        ("a: =", {"a": "="}),
        ("=: 1", {"=": 1}),
        ("a: [<<, '=']", {"a": ["<<", "="]}),
        ("a: ['017', \"1:30\", 08, 0x1F, 0b11, 1_000]", {"a": ["017", "1:30", "08", 31, 3, 1000]}),
        ("a: [0o17, -0o17, +0o1_7, 0, -0, 00, 07]", {"a": [15, -15, "+0o1_7", 0, 0, 0, 7]}),
        ("a: [1.5, -0.5, .inf, 1_0.5]", {"a": [1.5, -0.5, float("inf"), 10.5]}),
        ("a: [on, off, yes, no]", {"a": [True, False, True, False]}),
    ],
)
def test_what_surprises_in_yaml_1_1_is_read_as_it_is_meant(
    written: Any, monkeypatch: pytest.MonkeyPatch, text: str, value: Any
) -> None:
    monkeypatch.setenv("NO", "text")
    assert parsed(written(text)).value == value


@pytest.mark.parametrize("text", ["::", "fe80::", "- x", "a: b", "? x", " a: [b] "])
def test_a_variable_is_a_mapping_or_list_only_if_it_is_meant(
    written: Any, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("DK_TEXT", text)
    assert parsed(written("a: !env DK_TEXT")).value == {"a": text.strip()}
    monkeypatch.setenv("DK_TEXT", "a: 1\nb: 2")
    assert parsed(written("a: !env DK_TEXT")).value == {"a": {"a": 1, "b": 2}}


@pytest.mark.parametrize("tag", ["!env ", "!secret env:"])
def test_a_variable_that_is_not_utf_8_is_named(
    written: Any, monkeypatch: pytest.MonkeyPatch, tag: str
) -> None:
    monkeypatch.setitem(os.environb, b"DK_BAD", b"\xff")
    message = error_of(written(f"a: {tag}DK_BAD"))

    assert message.startswith("cfg.yaml:1: ")
    assert message.removeprefix("cfg.yaml:1: the ").endswith(
        ("environment variable DK_BAD: not valid UTF-8", "variable DK_BAD is not valid UTF-8")
    )


@pytest.mark.parametrize("data", ["hush\n".encode("utf-8-sig"), b"hush\r\n"])
def test_a_secret_file_s_byte_order_mark_is_dropped(
    written: Any, tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "token").write_bytes(data)

    assert parsed(written("a: !secret file:token")).value == {"a": "hush"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_a_secret_file_in_another_encoding_is_refused(
    written: Any, tmp_path: Path, encoding: str
) -> None:
    (tmp_path / "token").write_bytes("hush".encode(encoding))
    message = error_of(written("a: !secret file:token"))

    assert message.startswith("cfg.yaml:1: cannot read the secret file token: not valid UTF-8")


def test_env_is_typed_as_yaml(written: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DK_INT", "5152")
    monkeypatch.setenv("DK_LIST", "[a, 1]")
    monkeypatch.setenv("DK_TEXT", "http://x")
    text = "i: !env DK_INT\na: !env DK_LIST\nb: !env [DK_TEXT, 1]\nc: !env [DK_MISSING, [1, x]]\n"

    assert parsed(written(text)).value == {
        "i": 5152,
        "a": ["a", 1],
        "b": "http://x",
        "c": [1, "x"],
    }


def test_a_variable_that_is_not_yaml_is_named(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DK_BAD", "a: b: c")

    assert error_of(written("a: !env DK_BAD")) == (
        "cfg.yaml:1: environment variable DK_BAD: not valid YAML: mapping values are not allowed here"
    )


def test_a_default_that_is_not_needed_is_not_evaluated(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DK_SET", "x")

    assert parsed(written("a: !env [DK_SET, !env DK_MISSING]")).value == {"a": "x"}
    assert parsed(written("a: !env [DK_MISSING, !env DK_SET]")).value == {"a": "x"}


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
    document = parsed(written(text))

    assert document.value == {
        "a": "from env",
        "b": "from file",
        "c": [{"d": "plain"}],
        "e": "from file",
    }
    assert [type(document.value[name]) for name in "abe"] == [Secret] * 3
    assert redact("from env, from file, plain") == ", ".join([HIDDEN] * 3)
