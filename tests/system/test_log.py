from __future__ import annotations

import json
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from daemonkit import StartError
from daemonkit.system import log
from daemonkit.system.log import (
    LIBRARY_LEVELS,
    attached,
    log_always,
    log_safely,
    print_error,
    set_level,
    write_stderr,
)
from daemonkit.system.recent import Recent

from .records import hide


class Settings(NamedTuple):
    """What of the settings is about the log."""

    log_file: str | None
    log_level: str = "INFO"
    log_format: str = "text"


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    names = (None, "first", "second", "first.slave", *LIBRARY_LEVELS)
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in names}
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(False)


def lines(path: Path) -> list[str]:
    """The messages in a log file."""
    return [line.split(maxsplit=5)[-1] for line in path.read_text().splitlines()]


def test_a_file_gets_json_at_the_chosen_level(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with attached("app", Settings(str(path), "WARNING", "json"), hide):
        logging.getLogger("x").info("not this")
        thread = threading.Thread(
            target=lambda: logging.getLogger("x").warning("this, hush"), name="slave-1"
        )
        thread.start()
        thread.join()
    fields = json.loads(path.read_text())

    assert (fields["message"], fields["thread"]) == ("this, *", "slave-1")


def test_without_a_file_lines_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with attached("app", Settings(None), hide):
        logging.getLogger("x").info("hush")

    assert capsys.readouterr().out.endswith(" INFO        *\n")


def test_warnings_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with attached("app", Settings(str(path)), hide):
            warnings.warn("say hush", stacklevel=1)

    assert re.search(r" py\.warnings +WARNING .*UserWarning: say \*\n", path.read_text())


def test_a_log_file_that_cannot_be_opened_is_named_in_one_line() -> None:
    with (
        pytest.raises(StartError) as caught,
        attached("app", Settings("/nowhere/x.log"), hide),
    ):
        pass

    assert str(caught.value) == (
        "cannot open the log file /nowhere/x.log: No such file or directory; see master.log_file"
    )


# Beside the handlers of the user's program


def test_the_user_s_handlers_and_levels_are_left_alone(tmp_path: Path) -> None:
    closed, seen = [], []

    class Own(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((self.name, record.getMessage()))

        def close(self) -> None:
            closed.append(self.name)
            super().close()

    places = {"root": logging.getLogger(), "app": logging.getLogger("first")}
    own = {name: Own() for name in places}
    for name, logger in places.items():
        own[name].set_name(name)
        own[name].setLevel("WARNING")
        logger.addHandler(own[name])
    logging.getLogger("first.slave").setLevel("ERROR")
    logging.getLogger("urllib3").setLevel("DEBUG")
    with attached("first", Settings(str(tmp_path / "first.log")), hide):
        logging.getLogger("first").warning("own")
        logging.getLogger("first.slave").warning("not this")
        logging.getLogger("x").warning("other")
        logging.getLogger("x").info("too low")
    places["app"].removeHandler(own["app"])

    assert (closed, own["root"].level) == ([], logging.WARNING)
    assert own["root"] in logging.getLogger().handlers
    assert seen == [("app", "own"), ("root", "own"), ("root", "other")]
    assert lines(tmp_path / "first.log") == ["own", "other", "too low"]
    assert logging.getLogger("urllib3").level == logging.DEBUG
    assert logging.getLogger("asyncio").level == logging.INFO


def test_a_second_start_adds_no_second_handler(tmp_path: Path) -> None:
    path, before = tmp_path / "app.log", len(logging.getLogger().handlers)
    for text in ("one", "two", "three"):
        with attached("app", Settings(str(path)), hide):
            logging.getLogger("app").info(text)

    assert lines(path) == ["one", "two", "three"]
    assert len(logging.getLogger().handlers) == before + 1


def test_the_process_s_log_remains_after_the_daemon(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    with attached("app", Settings(str(path)), hide):
        pass
    logging.getLogger("app").critical("late")

    assert lines(path) == ["late"]


# Two daemons in a process


def test_each_daemon_has_its_own_log_and_the_first_one_gets_other_lines(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with ExitStack() as running:
        running.enter_context(attached("first", Settings(str(first), "WARNING"), hide))
        running.enter_context(attached("second", Settings(str(second), "DEBUG"), hide))
        for name in ("first", "first.slave", "second", "second.slave", "secondary", "root", "lib"):
            logging.getLogger(name).warning(name)
            logging.getLogger(name).debug("debug %s", name)

    assert lines(first) == ["first", "first.slave", "secondary", "root", "lib"]
    assert lines(second) == ["second", "debug second", "second.slave", "debug second.slave"]


def test_a_daemon_named_within_another_one_s_name_has_its_own_lines(tmp_path: Path) -> None:
    with ExitStack() as running:
        for name in ("first", "first.second"):
            settings = Settings(str(tmp_path / f"{name}.log"))
            running.enter_context(attached(name, settings, hide))
        logging.getLogger("first.second.slave").info("inner")
        logging.getLogger("first.third").info("outer")

    assert lines(tmp_path / "first.log") == ["outer"]
    assert lines(tmp_path / "first.second.log") == ["inner"]


def test_the_one_that_still_runs_takes_over_the_process_s_log(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with ExitStack() as running:
        ending = ExitStack()
        ending.enter_context(attached("first", Settings(str(first), "WARNING"), hide))
        running.enter_context(attached("second", Settings(str(second), "INFO"), hide))
        ending.close()
        logging.getLogger("lib").info("lib")
        logging.getLogger("first").info("late")

    assert lines(first) == []
    assert lines(second) == ["lib", "late"]


def test_a_guest_s_file_has_its_own_lines_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.getLogger("first").level)
    path = tmp_path / "first.log"
    with attached("first", Settings(str(path), "DEBUG"), hide, is_guest=True):
        assert root.level == before[1]
        logging.getLogger("first.slave").debug("own hush")
        logging.getLogger("lib").critical("other")

    assert lines(path) == ["own *"]
    assert (root.handlers[:], root.level, logging.getLogger("first").level) == before


def test_a_guest_without_a_file_has_no_log() -> None:
    before = logging.getLogger().handlers[:]
    with attached("first", Settings(None), hide, is_guest=True):
        assert logging.getLogger().handlers == before


@pytest.mark.parametrize("place", [-2, -1], ids=["before it gets the line", "after that"])
def test_a_log_that_ends_while_a_line_is_passed_on_neither_takes_it_nor_hides_it(
    tmp_path: Path, place: int
) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    root, running = logging.getLogger(), ExitStack()

    class Ending(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            running.close()

    running.enter_context(attached("first", Settings(str(first)), hide))
    ending = Ending()
    with attached("second", Settings(str(second)), hide):
        root.handlers.insert(place, ending)
        logging.getLogger("second").info("of the second")
        root.removeHandler(ending)

    assert (lines(first), lines(second)) == ([], ["of the second"])


def test_without_a_log_there_is_no_level_to_set() -> None:
    before = logging.getLogger().level
    with attached("first", Settings(None), hide, is_guest=True):
        set_level("first", "DEBUG")
        during = logging.getLogger().level
    set_level("first", "DEBUG")

    assert (during, logging.getLogger().level) == (before, before)


def test_a_level_is_changed_for_one_daemon(tmp_path: Path) -> None:
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with ExitStack() as running:
        running.enter_context(attached("first", Settings(str(first)), hide))
        running.enter_context(attached("second", Settings(str(second)), hide))
        set_level("second", "ERROR")
        for name in ("first", "second"):
            logging.getLogger(name).info("before")
        set_level("first", "ERROR")
        set_level("second", "DEBUG")
        for name in ("first", "second"):
            logging.getLogger(name).info("after")

    assert (lines(first), lines(second)) == (["before"], ["after"])
    assert logging.getLogger("second").level == logging.NOTSET


def test_a_level_that_the_user_set_stays(tmp_path: Path) -> None:
    logging.getLogger("second").setLevel("ERROR")
    with ExitStack() as running:
        for name in ("first", "second"):
            settings = Settings(str(tmp_path / f"{name}.log"), "DEBUG")
            running.enter_context(attached(name, settings, hide))
        set_level("second", "INFO")

    assert logging.getLogger("second").level == logging.ERROR


def test_a_line_that_is_always_logged_has_the_place_of_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.Logger("first", "ERROR")
    logger.addHandler(caplog.handler)
    log_always(logger, logging.INFO, "a %s", "b")

    (record,) = caplog.records
    assert (record.getMessage(), record.funcName) == (
        "a b",
        "test_a_line_that_is_always_logged_has_the_place_of_the_call",
    )
    assert record.pathname == __file__


# A log that fails


def test_a_line_is_written_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    write_stderr("caf\u00e9 \ud800\n")

    assert capfd.readouterr().err == "caf\u00e9 ?\n"


@pytest.mark.parametrize("is_guest", [False, True])
def test_with_json_a_process_writes_nothing_else_unless_it_is_another_program_s(
    tmp_path: Path, is_guest: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "app.log"
    with attached("app", Settings(str(path), log_format="json"), hide, is_guest=is_guest):
        print("hush")
        write_stderr("app: hush\n")
    print("plain")
    print_error("app", StartError("hush"), "text" if is_guest else "json", hide)

    out, err = (text.splitlines() for text in capfd.readouterr())
    if is_guest:
        assert (out, err[0], err[-1]) == (["hush", "plain"], "app: *", "app: *")
        return
    first, after = out
    assert (json.loads(first)["message"], after) == ("*", "plain")
    shown = [json.loads(line) for line in err]
    assert [(fields["logger"], fields["level"], fields["message"]) for fields in shown] == [
        ("stderr", "ERROR", "app: *"),
        ("app", "CRITICAL", "*"),
    ]
    assert path.read_text() == ""


def test_a_full_or_closed_stderr_neither_blocks_nor_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def refuse(*arguments: object) -> int:
        written.append(arguments)
        raise OSError

    monkeypatch.setattr(log, "os", SimpleNamespace(write=refuse))
    write_stderr("line\n")
    full = SimpleNamespace(select=lambda *arguments: ([], [], []))
    monkeypatch.setattr(log, "select", full)
    write_stderr("line\n")

    assert written == [(2, b"line\n")]


def test_a_handler_that_raises_does_no_harm_and_the_message_goes_to_stderr(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("no")

    logger = logging.Logger("app")
    logger.addHandler(Broken())
    log_safely(logger, logging.INFO, "Stopped by %s", "me")

    assert capfd.readouterr().err == "app: Stopped by me\n"


def test_what_goes_to_stderr_instead_is_redacted_and_never_raises(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raise ValueError("no")

    class Wrong:
        def __str__(self) -> str:
            raise SystemExit

    logger = logging.getLogger("first")
    handler = Broken()
    logger.addHandler(handler)
    with attached("first", Settings(str(tmp_path / "first.log")), hide):
        log_safely(logger, logging.INFO, "Stopped by %s", "hush")
        log_safely(logger, logging.INFO, "Stopped by %s", Wrong())
    logger.removeHandler(handler)

    assert capfd.readouterr().err == (
        "first: Stopped by *\nfirst: Stopped by (Wrong that can't be shown: SystemExit)\n"
    )


@pytest.mark.parametrize(
    ("is_guest", "has_file", "own"),
    [(False, True, False), (True, True, True), (True, False, True)],
    ids=["process", "guest with a file", "guest"],
)
def test_the_recent_warnings_are_those_of_the_daemon_s_log(
    tmp_path: Path, is_guest: bool, has_file: bool, own: bool
) -> None:
    recent, path = Recent(hide), str(tmp_path / "app.log") if has_file else None
    second = Settings(str(tmp_path / "second.log"))
    with (
        attached("first", Settings(path), hide, recent, is_guest=is_guest),
        attached("second", second, hide),
    ):
        for name in ("first", "first.slave", "second", "other"):
            logging.getLogger(name).warning("from %s", name)
    logging.getLogger("first").warning("too late")

    expected = ["from first", "from first.slave", *([] if own else ["from other"])]
    assert [line["message"] for line in recent.shown()] == expected
