from __future__ import annotations

import logging
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from daemonkit.system.reports import redact_reports

from .records import hide

PROGRAM = """
import logging, sys, threading, warnings
from daemonkit.system.reports import redact_reports

redact_reports(lambda text: text.replace("hush", "*"))

class Wrong:
    def __repr__(self):
        return "<hush>"
    def __del__(self):
        raise ValueError("in __del__: hush")

def fail():
    raise ValueError("in a thread: hush")

def leave():
    raise SystemExit("in a thread: hush")

logging.getLogger("any").warning("logged: %s", "hush")
warnings.warn("a warning: hush")
for target in (fail, leave):
    thread = threading.Thread(target=target, name="name-hush")
    thread.start()
    thread.join()
Wrong()
raise ValueError("at the top level: hush")
"""


def stderr_of(file: Path, program: str) -> list[str]:
    """What a program reports; lines with addresses are left out."""
    file.write_text(program)
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert done.returncode == 1
    return [line for line in done.stderr.splitlines() if " at 0x" not in line]


def test_uncaught_exceptions_are_reported_as_by_python_but_redacted(tmp_path: Path) -> None:
    file = tmp_path / "prog.py"
    shown = stderr_of(file, PROGRAM)
    plain = stderr_of(file, PROGRAM.replace("\nredact_reports(", "\n("))

    # Source lines have it, too.
    assert not [line for line in shown if "hush" in line]
    assert shown == [line.replace("hush", "*") for line in plain]
    assert "Exception in thread name-*:" in shown
    assert "ValueError: in __del__: *" in shown
    assert "logged: *" in shown
    assert f"{file}:20: UserWarning: a warning: *" in shown


def test_hooks_of_the_user_s_program_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", print)
    monkeypatch.setattr(sys, "unraisablehook", print)
    monkeypatch.setattr(threading, "excepthook", print)
    monkeypatch.setattr(warnings, "formatwarning", print)
    monkeypatch.setattr(logging, "lastResort", None)
    redact_reports(hide)

    assert [sys.excepthook, sys.unraisablehook, threading.excepthook] == [print] * 3
    assert warnings.formatwarning is print


def test_a_missing_stderr_is_tolerated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    redact_reports(hide)
    monkeypatch.setattr(sys, "stderr", None)

    sys.excepthook(ValueError, ValueError("x"), None)
