from __future__ import annotations

import io
import sys

import pytest

from daemonkit.cli.output import fail, note, say
from daemonkit.config.secrets import SECRETS


def test_what_is_written_has_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    SECRETS.add(["hush-hush"])
    note("a hush-hush\x1b")
    say(["b hush-hush"])

    captured = capsys.readouterr()
    assert captured.err == "a *** HIDDEN ***\\u001b\n"
    assert captured.out == "b *** HIDDEN ***\n"


def test_a_failure_is_one_line_and_an_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail("no\nroom", 3)

    assert caught.value.code == 3
    assert capsys.readouterr().err == "daemonkit: no\\nroom\n"


def test_what_stdout_can_t_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    say(["жa"])
    stdout.flush()

    assert stdout.buffer.getvalue() == b"\\u0436a\n"  # type: ignore[attr-defined]
