from __future__ import annotations

import logging

import pytest

from daemonkit import Daemon
from daemonkit.alert_commands import AlertCommands
from daemonkit.testing import running


def test_the_daemon_has_the_commands() -> None:
    assert issubclass(Daemon, AlertCommands)
    with pytest.raises(NotImplementedError):
        AlertCommands().alert("disk", "OK", "")


def test_an_alert_before_the_start_is_kept_and_one_after_the_stop_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Daemon("billing")
    app.alert("disk", "WARN", "90 %")
    app.alert("disk", "CRIT", "99 %")

    with running(app) as client:
        assert client.alerts == [("disk", "CRIT", "99 %")]
    caplog.clear()
    app.alert("disk", "OK", "fine")

    assert client.alerts == [("disk", "CRIT", "99 %")]
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["Ignored the alert disk: the daemon has stopped"]


def test_wrong_arguments_are_refused_at_the_call() -> None:
    app = Daemon("billing")

    with pytest.raises(ValueError, match=r"^an alert's status is one of OK, INFO, WARN, CRIT, not"):
        app.alert("disk", "BAD", "")
    with pytest.raises(TypeError, match=r"^the description of an alert must be a string, not None"):
        app.alert("disk", "OK", None)  # type: ignore[arg-type]


def test_a_subclass_alerts_from_run_and_from_its_stop_hooks() -> None:
    class Billing(Daemon):
        def run(self) -> None:
            self.alert("disk", "CRIT", "full")
            self.stop()

    app = Billing()
    app.add_stop_hook(lambda: app.alert("disk", "OK", "room"))
    with running(app) as client:
        assert app.shutdown.wait(20)

    assert client.alerts == [("disk", "CRIT", "full"), ("disk", "OK", "room")]
