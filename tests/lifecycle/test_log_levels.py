from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.lifecycle.log_levels import LogLevels
from daemonkit.system import log
from daemonkit.testing import running

from ..clock import Clock

OTHER = "some.library"


class Configured:
    def __init__(self) -> None:
        self.level = "INFO"

    @property
    def log_level(self) -> str:
        return self.level

    log_file = None
    log_format = "text"


class Levels(LogLevels):
    def __init__(self) -> None:
        self.clock = Clock()
        self.settings = Configured()
        self.wakes = 0
        super().__init__(
            "app", lambda: self.settings.level, logging.getLogger("app"), self._woken, self.clock
        )

    def _woken(self) -> None:
        self.wakes += 1

    def pass_time(self, seconds: float) -> float:
        self.clock.now += seconds
        return self.run_due(self.clock.now) - self.clock.now


@pytest.fixture
def levels() -> Iterator[Levels]:
    """Those of a daemon that has a log."""
    levels, before = Levels(), logging.getLogger().level
    with log.attached("app", levels.settings, str):
        yield levels
    levels.revert_all()
    logging.getLogger().setLevel(before)
    logging.getLogger(OTHER).setLevel(logging.NOTSET)


def level() -> str:
    return logging.getLevelName(logging.getLogger().level)


def test_a_level_reverts_by_itself(levels: Levels, caplog: pytest.LogCaptureFixture) -> None:
    levels.set("app", "ERROR", 600, "me")
    (shown,) = levels.shown()
    waits = levels.pass_time(599)
    during = level()
    after = levels.pass_time(1)

    assert (during, level(), waits, after) == ("ERROR", "INFO", 1, math.inf)
    assert (shown["logger"], shown["level"], shown["by"]) == ("app", "ERROR", "me")
    assert "The log level of app is INFO again" in caplog.messages
    assert levels.wakes == 1
    assert levels.shown() == []


def test_without_a_time_it_stays(levels: Levels) -> None:
    levels.set("app", "ERROR", None, "me")
    levels.pass_time(1e6)

    assert (level(), levels.shown()[0]["until"]) == ("ERROR", None)


def test_a_reload_doesn_t_end_it_and_it_reverts_to_the_new_configuration(levels: Levels) -> None:
    levels.set("app", "ERROR", 600, "me")
    levels.settings.level = "WARNING"
    levels.configuration_changed()
    during = level()
    levels.pass_time(600)

    assert (during, level()) == ("ERROR", "WARNING")


def test_a_reload_applies_the_configured_level_if_no_other_is_set(levels: Levels) -> None:
    levels.set(OTHER, "ERROR", 600, "me")
    levels.settings.level = "WARNING"
    levels.configuration_changed()

    assert level() == "WARNING"


def test_set_twice_it_reverts_to_what_was_there_first(levels: Levels) -> None:
    logging.getLogger(OTHER).setLevel(logging.WARNING)
    levels.set(OTHER, "ERROR", 600, "me")
    levels.set(OTHER, "DEBUG", 60, "you")
    during = logging.getLogger(OTHER).level
    levels.pass_time(60)

    assert (during, logging.getLogger(OTHER).level) == (logging.DEBUG, logging.WARNING)


def test_it_can_be_reverted_early_and_only_once(levels: Levels) -> None:
    levels.set("app", "ERROR", 600, "me")

    assert (levels.revert("app"), level(), levels.revert("app")) == (True, "INFO", False)


def test_in_another_program_only_the_daemon_s_own_logger_is_changed() -> None:
    levels, root = Levels(), logging.getLogger().level
    levels.set("app", "ERROR", None, "me")
    during = logging.getLogger("app").level, logging.getLogger().level
    levels.revert_all()

    assert (during, logging.getLogger("app").level) == ((logging.ERROR, root), logging.NOTSET)


def test_a_daemon_that_stops_reverts_them(tmp_path: Path) -> None:
    app = Daemon("app")
    master: dict[str, Any] = {"log_file": str(tmp_path / "log"), "log_level": "INFO"}
    with running(app, {"master": master}) as client:
        for fields in (
            {"level": "error", "logger": "app"},
            {"level": "debug", "logger": "asyncio", "for": "10m"},
        ):
            client.post("/control/level", json=fields).raise_for_status()
        shown = [(item["logger"], item["level"]) for item in client.status()["levels"]]

    assert shown == [("app", "ERROR"), ("asyncio", "DEBUG")]
    assert logging.getLogger("asyncio").level != logging.DEBUG


def test_a_slave_s_logger_is_known_by_the_slave_s_name() -> None:
    app = Daemon("app")
    app.add_slave(lambda slave: slave.shutdown.wait(), name="work")
    with running(app) as client:
        answer = client.post("/control/level", json={"level": "error", "logger": "work"})

    assert answer.json()["message"] == "The log level of app.work is ERROR until the daemon stops"
