from __future__ import annotations

from typing import Any

import pytest

from daemonkit.cli.slave_names import slaves

from .stub import Reply, envelope, serving
from .test_completion import completed

PERIODIC = {"next_call_in": 5.0}
STATUS = {
    "slaves": [
        {"name": "sweep", **PERIODIC},
        {"name": "steady"},
        {"name": "poller", **PERIODIC},
        {"name": "\x1b", **PERIODIC},
    ]
}


def test_slaves_are_those_of_the_running_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: envelope(STATUS)) as stub:
        assert completed("ctl", "restart", "--url", stub.url, "") == ["sweep", "steady", "poller"]
        assert completed("ctl", "--url", stub.url, "restart", "p") == ["poller"]
        monkeypatch.setenv("DAEMONKIT_URL", stub.url)
        assert completed("ctl", "run-now", "s") == ["sweep"]
        assert completed("ctl", "pause", "") == ["events", "sweep", "poller"]
        assert completed("ctl", "resume", "e") == ["events"]


@pytest.mark.parametrize("url", ["unix:/nowhere", "nonsense"])
def test_without_a_daemon_there_are_none(url: str) -> None:
    assert completed("ctl", "restart", "--url", url, "") == []


@pytest.mark.parametrize(
    "message", [None, 5, {}, {"slaves": 5}, {"slaves": [5]}, {"slaves": [{"name": 5}]}]
)
def test_what_is_no_daemon_has_none(message: Any) -> None:
    with serving(lambda _: envelope(message)) as stub:
        assert slaves({"url": stub.url}) == []
    with serving(lambda _: Reply(200, b"<html>")) as stub:
        assert slaves({"url": stub.url}) == []
