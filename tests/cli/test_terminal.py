from __future__ import annotations

import io

import pytest

from daemonkit.cli.terminal import Style, aligned, padded, printable, truncated, width_of


def test_control_characters_are_escaped_as_in_json() -> None:
    assert printable("жé \x1b[31m\n\u2028") == "жé \\u001b[31m\\n\\u2028"
    assert printable("a\nb\x07", keep="\n") == "a\nb\\u0007"


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("жé", 2), ("e\u0301", 1), ("日本", 4), ("", 0)]
)
def test_a_text_s_width_is_counted_in_columns(text: str, columns: int) -> None:
    assert width_of(text) == columns


def test_a_text_is_cut_and_padded_to_columns() -> None:
    assert [truncated("日本語", width) for width in (6, 5)] == ["日本語", "日..."]
    assert truncated("abcdef", 5) == "ab..."
    assert padded("日本", 6) == "日本  "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "variables", "text"),
    [
        (Terminal(), {}, "\x1b[1;31mx\x1b[0m"),
        (Terminal(), {"NO_COLOR": "1"}, "x"),
        (Terminal(), {"NO_COLOR": ""}, "\x1b[1;31mx\x1b[0m"),
        (Terminal(), {"TERM": "dumb"}, "x"),
        (io.StringIO(), {}, "x"),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, variables: dict[str, str], text: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert Style.of(stream).bad("x") == text
    assert Style.of(stream).bad("") == ""


def test_rows_are_aligned_and_cut_to_the_width() -> None:
    rows = [("NAME", "TEXT"), ("日本", "a"), ("abcdefghij", "b" * 20)]

    assert aligned(rows, 100, 8) == ["NAME      TEXT", "日本      a", "abcde...  " + "b" * 20]
    assert aligned(rows, 16, 8)[2] == "abcde...  bbb..."
