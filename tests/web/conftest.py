from __future__ import annotations

import threading

import pytest

from daemonkit import Daemon


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


@pytest.fixture
def slow(app: Daemon) -> tuple[threading.Event, threading.Event]:
    """A route /slow: set once it is entered, and to be set for it to answer "done"."""
    entered, release = threading.Event(), threading.Event()

    @app.route("/slow")
    def slow() -> str:
        entered.set()
        release.wait(10)
        return "done"

    return entered, release
