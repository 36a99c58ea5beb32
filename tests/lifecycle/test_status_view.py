from __future__ import annotations

from typing import Any

import pytest

from daemonkit import Daemon, Secret
from daemonkit.testing import Client, running

READER = {"reader": {"token": Secret("r" * 16), "may": ["read"]}}


AS_READER = {"Authorization": f"Bearer {'r' * 16}"}


@pytest.mark.parametrize("is_guarded", [False, True])
def test_dead_letters_are_shown_whole_only_to_those_with_a_token(is_guarded: bool) -> None:
    app = Daemon("app")
    app.on_event(lambda event: {}[event])
    with running(app, {"master": {"tokens": READER if is_guarded else {}}}) as client:

        def events() -> dict[str, Any]:
            shown = client.get("/status", headers=AS_READER).json()["message"]["events"]
            assert isinstance(shown, dict)
            return shown

        client.send_event("the event")
        client.wait_until(lambda: events()["dead"])
        (letter,) = events()["dead_letters"]

    assert (letter["id"], letter["attempts"]) == (1, 1)
    assert letter["error"] == ("KeyError: 'the event'" if is_guarded else "KeyError")
    if is_guarded:
        assert letter["event"] == '"the event"'
        assert letter["traceback"].startswith("Traceback")
    else:
        assert letter.keys() == {"id", "attempts", "first_failed", "last_failed", "error"}


def test_status_stays_small_although_large_events_are_in_the_errors() -> None:
    app = Daemon("app")

    @app.on_event
    def fail(event: str) -> None:
        raise ValueError(event)

    with running(app, {"master": {"tokens": READER}}) as client:
        for _ in range(20):
            client.send_event("x" * 1_000_000)

        def shown() -> Any:
            return client.get("/status", headers=AS_READER)

        client.wait_until(lambda: shown().json()["message"]["events"]["dead"] == 20)
        assert len(shown().content) < 1_000_000


def test_the_history_has_what_happened() -> None:
    app = Daemon("app")
    app.on_event(lambda event: None)
    with running(app) as client:

        def shown(query: str = "") -> Any:
            return client.get(f"/status/history{query}").json()["message"]

        client.wait_until(lambda: shown()["series"]["received"])
        for number in range(5):
            client.send_event(number)
        client.wait_until(lambda: any(shown()["series"]["handled"]))
        whole = shown()
        last = whole["start"] + len(whole["series"]["received"]) - 1
        client.wait_until(lambda: shown(f"?since={last}")["series"]["received"])
        later = shown(f"?since={last}")
        wrong = client.get("/status/history?since=now")

    assert later["start"] == last + 1
    assert any(whole["series"]["handler_median"])
    assert (wrong.status_code, wrong.json()["message"]) == (400, "since must be in Unix seconds")


def test_answers_of_both_listeners_are_counted() -> None:
    app = Daemon("app")
    with running(app, {"master": {"admin": "127.0.0.1:0"}}) as client:
        parts = app._assembly.parts
        assert parts is not None
        assert parts.admin is not None
        admin = Client("127.0.0.1", 10, parts.admin._socket.getsockname()[1])
        client.get("/nowhere")
        for _ in range(2):
            admin.get("/status")
        client.wait_until(lambda: admin.status()["http"]["answers"]["200"] >= 2)

        assert admin.status()["http"]["answers"]["404"] == 1
