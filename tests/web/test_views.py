from __future__ import annotations

from daemonkit import Daemon
from daemonkit.web.views import Views


def test_a_daemon_gives_the_routes_all_that_they_call() -> None:
    views = Daemon("app")._operations.views()

    assert isinstance(views, Views)
    assert all(
        callable(view) or name in ("health", "logger") for name, view in views._asdict().items()
    )
