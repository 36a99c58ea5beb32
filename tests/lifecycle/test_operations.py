from __future__ import annotations

from typing import Any

from daemonkit import Daemon
from daemonkit.testing import Client, running


def test_overrides_of_the_program_are_what_the_routes_show() -> None:
    class Mine(Daemon):
        def status(self) -> dict[str, Any]:
            return {**super().status(), "mine": 42}

        def ping(self) -> str:
            return "fine\n"

    with running(Mine()) as client:
        status, ping = client.status(), client.get("/ping").text

    assert (status["mine"], status["name"], ping) == (42, "Mine", "fine\n")


def test_a_status_that_fails_is_replaced_by_the_daemon_s_own() -> None:
    class Broken(Daemon):
        def status(self) -> Any:
            raise ValueError("no")

    with running(Broken()) as client:
        status = client.status()

    assert (status["error"], status["phase"]) == ("ValueError: no", "running")


def test_while_the_daemon_starts_the_health_check_is_not_asked() -> None:
    app, found = Daemon("app"), []
    app.on_ping(lambda: found.append("asked"))

    @app.on_start
    def ask() -> None:
        client = Client("127.0.0.1", 10, app.master_config["port"])
        found.append(client.get("/ping").status_code)

    with running(app):
        pass

    assert found == [503]
