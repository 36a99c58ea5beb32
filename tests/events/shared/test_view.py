from __future__ import annotations

from daemonkit.events.shared.view import View, heard_in

ANSWER = [
    [b"a", b"3", b"b", b"9"],
    [b"a", b'{"host": "h", "held": 2}', b"b", b"damaged"],
    [b"a", 2],
    -1,
    15_000,
    [b"5", None, b"1", None],
    2,
    1,
]


def test_a_heartbeats_answer_is_read() -> None:
    heard = heard_in(ANSWER)

    assert heard.counters == {b"a": b"3", b"b": b"9"}
    assert heard.consumers == {b"a": 2}
    assert heard.counts == View(waiting=5, retrying=2, dead=1, dead_now=1, oldest_age=1.5)
    assert heard.view({b"a": 0.5, b"b": 1.2345}, heard.about).nodes == (
        {"name": "a", "age": 0.5, "host": "h", "held": 2},
        {"name": "b", "age": 1.234},
    )
