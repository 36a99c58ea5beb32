from __future__ import annotations

import threading

from daemonkit import Daemon
from daemonkit.lifecycle.parts import Host
from daemonkit.testing import running


def test_waiting_events_and_events_in_work_are_left() -> None:
    app = Daemon("app")
    release = threading.Event()
    app.on_event(lambda event: release.wait(60))

    with running(app) as client:
        parts = app._assembly.parts
        assert parts is not None
        assert parts.events_left() == 0
        for _ in range(3):
            client.send_event(1)
        client.wait_until(lambda: parts.processor.in_work == 1)
        assert parts.events_left() == 3
        release.set()
        client.wait_until(lambda: parts.events_left() == 0)


def test_by_default_the_host_has_no_variables_and_no_sockets() -> None:
    assert (dict(Host().environ), list(Host().sockets)) == ({}, [])
