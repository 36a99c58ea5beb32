from __future__ import annotations

import pytest

from daemonkit import Daemon, QueueFull


def test_events_queued_before_the_configuration_is_known_count_against_queue_size() -> None:
    app = Daemon("app")
    app.put_event(1)
    app.configure({"master": {"queue_size": 1}})

    with pytest.raises(QueueFull, match=r"\(1 events\)"):
        app.put_event(2)
