from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from daemonkit.cli.status_screen import Size, is_healthy, screen
from daemonkit.cli.terminal import Style, width_of

from ..json_values import json_values

STARTED, NOW = "2026-11-26 20:00:00.500000", "2026-11-26 22:03:00.400000"


def slave(name: str, state: str = "running", **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": state,
        "restarts": 0,
        "last_heartbeat": NOW,
        "last_error": None,
        **more,
    }


def letter(id: int) -> dict[str, Any]:
    return {"id": id, "last_failed": NOW, "attempts": 3, "error": f"ValueError: {id}"}


def action(number: int, ok: bool = True) -> dict[str, Any]:
    return {"time": NOW, "by": "oncall", "action": f"restart {number}", "outcome": "Done", "ok": ok}


STATUS: dict[str, Any] = {
    "name": "billing",
    "phase": "running",
    "problems": [],
    "waiting_for": [],
    "pid": 4711,
    "started": STARTED,
    "uptime": 7380.0,
    "events": {"received": 12345, "handled": 12340, "failed": 2, "refused": 0, "waiting": 5,
               "in_work": 1, "retrying": 0, "oldest_age": 2.5, "dead": 1, "dead_letters": [letter(7)]},
    "slaves": [
        slave("sweep", next_call_in=23.4),
        slave("poller", "backing off", restarts=3, next_restart_in=4,
              last_error={"error": "OSError: away", "place": "/srv/mymod.py:8 in poller"}),
    ],
    "alerts": {"juggler": {"waiting": 0, "sent": 2, "refused": 0, "dropped": 0}},
    "actions": [action(1)],
}  # fmt: skip


def shown(status: Any, columns: int = 100, lines: int | None = None) -> list[str]:
    return screen(status, "http://localhost:5151", Size(columns, lines), Style(False))


def test_it_answers_in_ten_seconds_what_the_daemon_is_doing() -> None:
    assert shown(STATUS) == [
        "● billing - running, healthy",
        "   Active: since 2026-11-26 20:00:00, for 2 h 3 min, pid 4711",
        "  Address: http://localhost:5151",
        "   Events: 12,345 received, 12,340 handled, 2 failed, 5 waiting, 1 in work, 1 dead, oldest waits ...",
        "   Alerts: juggler: 2 sent",
        "",
        "SLAVE   STATE        RESTARTS  HEARTBEAT  NEXT CALL  LAST ERROR",
        "sweep   running      0         0.1 s      in 23 s",
        "poller  backing off  3         0.1 s      in 4.0 s   OSError: away (/srv/mymod.py:8 in poller)",
        "",
        "DEAD LETTER  LAST FAILURE         ATTEMPTS  ERROR",
        "7            2026-11-26 22:03:00  3         ValueError: 7",
        "",
        "CONTROL ACTION       BY      ACTION     OUTCOME",
        "2026-11-26 22:03:00  oncall  restart 1  Done",
    ]


def test_the_first_line_has_the_reason() -> None:
    problems = ["the slave sweep has failed", "the event processor is stalled"]
    first, *_ = shown({**STATUS, "problems": problems})

    assert first == (
        "● billing - running, the slave sweep has failed; the event processor is stalled"
    )
    starting = {**STATUS, "phase": "starting", "waiting_for": ["the sockets"]}
    assert shown(starting)[0] == "● billing - starting, waiting for the sockets"
    assert shown({"x": 1})[0] == "● ? - ?, healthy"
    assert is_healthy(STATUS)
    assert not is_healthy({**STATUS, "problems": problems})


def test_what_control_has_changed_is_named() -> None:
    status = {
        **STATUS,
        "paused": {
            "events": {"since": STARTED, "by": "oncall"},
            "slaves": {"sweep": {"since": STARTED, "by": "::1"}},
        },
        "levels": [
            {"logger": "billing", "level": "DEBUG", "until": NOW, "by": "oncall"},
            {"logger": "urllib3", "level": "INFO", "until": None, "by": None},
        ],
        "slaves": [slave("sweep", paused=True)],
    }
    lines = shown(status)

    assert lines[3:7] == [
        "   Paused: events by oncall since 2026-11-26 20:00:00",
        "   Paused: sweep by ::1 since 2026-11-26 20:00:00",
        "    Level: DEBUG for billing until 2026-11-26 22:03:00 (by oncall)",
        "    Level: INFO for urllib3 until the daemon stops",
    ]
    assert "sweep  running, paused  0" in "\n".join(lines)


def test_a_reload_that_failed_and_an_alert_that_ends_are_named() -> None:
    alert = {"service": "disk", "status": "CRIT", "description": "full"}
    status = {
        **STATUS,
        "reload_failed": {"time": NOW, "error": "cfg.yaml:3: wrong"},
        "alerts": {"active": [alert, {**alert, "resolving": True}]},
    }

    assert [line for line in shown(status) if "Reload" in line or "Alert:" in line] == [
        "   Reload: failed at 2026-11-26 22:03:00: cfg.yaml:3: wrong",
        "    Alert: disk CRIT: full",
        "    Alert: disk CRIT (resolving): full",
    ]


def test_the_user_s_fields_are_listed_and_those_that_failed_stand_out() -> None:
    status = {**STATUS, "revenue": 5, "cache": {"hits": [1, 2]}, "broken": {"error": "no file"}}
    lines = shown(status)
    many = shown({**STATUS, **{f"f{n}": n for n in range(50)}}, 80, 30)
    coloured = screen(status, "a", Size(100), Style(True))

    start = lines.index("STATUS FIELD  VALUE")
    assert lines[start + 1 : start + 4] == [
        "revenue       5",
        'cache         {"hits": [1, 2]}',
        'broken        {"error": "no file"}',
    ]
    assert any(line.startswith("\x1b[1;31mbroken") for line in coloured)
    assert "... 48 more fields" in many
    assert len(many) <= 30


def test_colours_show_what_is_wrong() -> None:
    status = {**STATUS, "problems": ["x"], "actions": [action(1, ok=False)]}
    lines = screen(status, "a", Size(100), Style(True))

    assert lines[0] == "\x1b[1;31m●\x1b[0m \x1b[1mbilling\x1b[0m - \x1b[1;31mrunning, x\x1b[0m"
    red = [line.split()[0] for line in lines[1:] if line.startswith("\x1b[1;31m")]
    assert red == ["\x1b[1;31mpoller", "\x1b[1;31m2026-11-26"]


def test_it_fits_on_the_screen_and_problems_come_first() -> None:
    many = [slave(f"s{n}", "failed" if n == 30 else "running") for n in range(40)]
    letters = [letter(n) for n in range(20)]
    status = {
        **STATUS,
        "slaves": many,
        "events": {"dead": 20, "dead_letters": letters},
        "actions": [action(n) for n in range(50)],
    }
    lines = shown(status, 80, 23)
    text = "\n".join(lines)

    assert len(lines) == 23
    assert [line for line in lines if line.startswith("s30 ")] != []
    assert "... 35 more slaves" in text
    # The latest of what is ordered by time.
    assert "ValueError: 19" in text
    assert "restart 49" in text
    assert "restart 46" not in text


@pytest.mark.parametrize("lines", range(1, 40))
def test_no_screen_is_too_small(lines: int) -> None:
    status = {**STATUS, "slaves": [slave(f"s{n}") for n in range(9)], "actions": [action(1)] * 9}

    assert len(shown(status, 40, lines)) <= max(lines, 5)


def test_a_daemon_s_text_does_not_control_the_terminal() -> None:
    status = {
        "name": "\x1b[2J",
        "phase": "\r",
        "problems": ["\x07"],
        "slaves": [slave("日本" * 40, "\n", last_error={"error": "\u202e", "place": "\x9b"})],
        "actions": [{"action": "\x1b]0;x\x07"}],
    }
    lines = shown(status, 60)

    assert all(line.isprintable() for line in lines)
    assert max(map(width_of, lines)) <= 60


@given(json_values())
def test_any_answer_can_be_shown(value: Any) -> None:
    keys = (
        "name",
        "problems",
        "paused",
        "levels",
        "events",
        "slaves",
        "actions",
        "uptime",
        "started",
    )
    for status in (value, dict.fromkeys(keys, value), {key: [value] for key in keys}):
        for line in screen(status, "a", Size(80, 24), Style(False)):
            assert width_of(line) <= 80


def test_a_status_that_is_no_mapping_is_shown_as_json() -> None:
    assert shown(["a", 1]) == ["[", '  "a",', "  1", "]"]
