from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.exceptions import BadRequest

from daemonkit import InvalidEvent
from daemonkit.web.control import VERBS, parse


@pytest.mark.parametrize(
    ("verb", "body", "expected"),
    [
        ("reload", "", {}),
        ("stop", " {} ", {}),
        ("level", {"level": "debug"}, {"level": "DEBUG"}),
        (
            "level",
            {"level": "default", "logger": "x", "for": "10m"},
            {"level": "DEFAULT", "logger": "x", "for": 600},
        ),
        ("pause", {"events": True}, {"events": True}),
        ("resume", {"slave": "a"}, {"slave": "a"}),
        ("stacks", {"slave": "a"}, {"slave": "a"}),
        ("retry", {"ids": [1, 2]}, {"ids": [1, 2]}),
        (
            "drop",
            {"all": True, "state": "Retrying", "error": "x"},
            {"all": True, "state": "retrying", "error": "x"},
        ),
    ],
)
def test_a_body_is_checked_and_converted(verb: str, body: Any, expected: Any) -> None:
    text = body if isinstance(body, str) else json.dumps(body)

    assert parse(verb, text.encode()) == expected


@pytest.mark.parametrize(
    ("verb", "body", "message"),
    [
        ("stop", "[]", "The body must be {}"),
        ("stop", '{"now": true}', "The body has an unexpected field 'now' (str)"),
        ("level", "{}", 'The body must be {"level": LEVEL}'),
        (
            "level",
            '{"level": "LOUD"}',
            "level must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, DEFAULT, not 'LOUD' (str)",
        ),
        (
            "level",
            '{"level": "INFO", "for": 0}',
            "for must be a duration of 1..604800 seconds, such as 30, 30s, 5m or 1h, not 0 (int)",
        ),
        (
            "level",
            '{"level": "INFO", "until": 1}',
            "The body has an unexpected field 'until' (str); known: logger, for",
        ),
        ("pause", "{}", 'The body must be {"events": true} or {"slave": NAME}'),
        (
            "pause",
            '{"events": true, "slave": "a"}',
            'The body must be {"events": true} or {"slave": NAME}',
        ),
        ("pause", '{"events": false}', "events must be true, not False (bool)"),
        ("restart", '{"slave": ""}', "slave must be a string of 1..1000 characters, not '' (str)"),
        ("retry", '{"ids": []}', "ids must be a list of 1..1000 numbers, not [] (list)"),
        ("retry", '{"ids": [true]}', "ids must be a list of 1..1000 numbers, not [True] (list)"),
        (
            "retry",
            '{"all": true, "ids": [1]}',
            'The body must be {"ids": [ID, ...]} or {"all": true}',
        ),
        (
            "drop",
            '{"ids": [1], "state": "dead"}',
            "The body has an unexpected field 'state' (str)",
        ),
    ],
)
def test_what_is_wrong_with_a_body_is_said_in_one_line(verb: str, body: str, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        parse(verb, body.encode())

    assert raised.value.description == message


def test_a_body_that_isn_t_json_is_refused_like_an_event() -> None:
    for verb in VERBS:
        with pytest.raises(InvalidEvent):
            parse(verb, b"{")
