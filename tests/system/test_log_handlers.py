from __future__ import annotations

import io
import sys

import pytest

from daemonkit.system.log_handlers import StdoutHandler

from .records import record


def test_what_stdout_cannot_encode_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))

    StdoutHandler().handle(record("a snowman: \u2603"))

    assert out.getvalue() == b"a snowman: \\u2603\n"


def test_a_line_after_the_reader_has_gone_is_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = io.StringIO()
    monkeypatch.setattr(sys, "stdout", gone)
    handler = StdoutHandler()
    gone.close()

    handler.handle(record("nobody reads this"))

    assert capsys.readouterr().err == ""
