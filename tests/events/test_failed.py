from __future__ import annotations

from daemonkit.events.failed import FailedEvent, Selection


def event(due: float | None = None) -> FailedEvent:
    return FailedEvent(7, 0.0, 2, 1.0, 2.0, due, "ValueError: a secret", "Traceback", '{"a": 1}')


def test_the_fields_of_a_request_select_events() -> None:
    assert Selection.of({"ids": [1, 2]}) == Selection((1, 2))
    assert Selection.of({"all": True}) == Selection(None, "dead", "")
    fields = {"all": True, "state": "retrying", "error": "x"}
    assert Selection.of(fields) == Selection(None, "retrying", "x")


def test_an_event_is_shown_whole_cut_or_without_its_content() -> None:
    whole, cut = event().shown(whole=True), event(5.0).shown(whole=True, limit=5)
    hidden = event().shown(whole=False)

    assert (whole["error"], whole["event"], whole["state"]) == (
        "ValueError: a secret",
        '{"a": 1}',
        "dead",
    )
    assert (cut["error"], cut["event"], cut["traceback"]) == ("Value...", '{"a":...', "Trace...")
    assert (cut["state"], cut["due"] is None) == ("retrying", False)
    assert whole.keys() - hidden.keys() == {"event", "traceback"}
    assert hidden["error"] == "ValueError"
