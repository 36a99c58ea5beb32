from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon, Secret
from daemonkit.testing import Client, running

AS_BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def message(client: Client, path: str, **options: Any) -> Any:
    answer = client.get(path, **options)
    assert answer.status_code == 200
    return answer.json()["message"]


def test_browsers_get_the_page_and_others_don_t() -> None:
    with running(Daemon("app")) as client:
        page = client.get("/", headers=AS_BROWSER)
        other = client.get("/")
        script, missing = client.get("/page/page.js"), client.get("/page/none.js")

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Accept" in page.headers["Vary"]
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert (other.status_code, missing.status_code) == (404, 404)
    assert script.headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_the_page_can_be_left_out() -> None:
    with running(Daemon("app"), {"master": {"page": False}}) as client:
        codes = [
            client.get(path, headers=AS_BROWSER).status_code for path in ("/", "/page/page.js")
        ]

    assert codes == [404, 404]


def test_a_route_of_the_program_s_own_takes_the_page_s_place() -> None:
    app = Daemon("app")
    app.get("/")(lambda: "mine")
    with running(app) as client:
        assert client.get("/", headers=AS_BROWSER).text == "mine"


def test_the_configuration_is_shown_with_its_origins(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("master:\n    queue_size: 7\nurl: http://x\npassword: !secret a-long-secret\n")
    with running(Daemon("app"), str(path)) as client:
        options = {o["key"]: o for o in message(client, "/status/config")}

    assert options["master.queue_size"] == {
        "key": "master.queue_size",
        "value": 7,
        "origin": f"{path}:2",
    }
    assert options["password"]["value"] == "*** HIDDEN ***"
    assert options["master.queue_memory"]["origin"] == "default"


@pytest.mark.parametrize("is_guarded", [False, True])
def test_warnings_quote_events_only_to_those_with_a_token(is_guarded: bool) -> None:
    app = Daemon("app")
    app.on_event(lambda event: {}[event])
    tokens = {"reader": {"token": Secret("r" * 16), "may": ["read"]}} if is_guarded else {}
    headers = {"Authorization": f"Bearer {'r' * 16}"}
    with running(app, {"master": {"tokens": tokens}}) as client:
        app.logger.warning("low on disk")
        client.send_event("an order")

        def shown() -> list[dict[str, Any]]:
            found = message(client, "/status/warnings", headers=headers)
            return [line for line in found if line["level"] in ("WARNING", "ERROR")]

        client.wait_until(lambda: len(shown()) >= 3)
        lines = shown()

    assert "low on disk" in [line["message"] for line in lines]
    assert ("an order" in str(lines)) is is_guarded
    assert lines[-1]["message"].startswith("The event handler failed ")
