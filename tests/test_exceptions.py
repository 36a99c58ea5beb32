from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemonkit import (
    ConfigError,
    Daemon,
    DaemonkitError,
    PingError,
    QueueFull,
    RegistrationError,
    StartError,
    Unavailable,
)
from daemonkit.exceptions import LoadError
from daemonkit.testing import running


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DaemonkitError, 1),
        (RegistrationError, 2),
        (LoadError, 2),
        (ConfigError, 2),
        (StartError, 3),
    ],
)
def test_each_error_has_its_exit_status(error: type[DaemonkitError], status: int) -> None:
    assert error("no").exit_status == status


def test_a_configuration_error_says_where() -> None:
    assert str(ConfigError("bad", Path("/a/cfg.yaml"), 3)) == "/a/cfg.yaml:3: bad"
    assert str(ConfigError("bad", "cfg.yaml")) == "cfg.yaml: bad"
    assert str(ConfigError("bad")) == "bad"


def test_what_is_unavailable_says_when_to_try_again() -> None:
    assert Unavailable("away").retry_after == 1
    assert Unavailable(retry_after=5).retry_after == 5
    assert isinstance(QueueFull("full"), Unavailable)


def test_a_ping_error_has_a_message_and_a_code() -> None:
    error = PingError(OSError("disk"), 500)

    assert (error.message, error.code, PingError("x").code) == ("disk", 500, 503)


@pytest.mark.parametrize("code", [200, 399, 600, True, "500"])
def test_a_ping_error_needs_an_error_code(code: Any) -> None:
    with pytest.raises(ValueError, match=r"^a PingError's code must be an int 400..599, not "):
        PingError("x", code)


def test_a_ping_error_with_a_lone_surrogate_is_answered_with_its_escape() -> None:
    def check() -> None:
        raise PingError("half \ud800", 502)

    app = Daemon()
    app.on_ping(check)
    with running(app) as client:
        answer = client.get("/ping")

    assert (answer.status_code, answer.content) == (502, b"half \\ud800")
