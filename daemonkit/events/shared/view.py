"""The whole queue as one node sees it, from the answers to its heartbeats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class View(NamedTuple):
    """The queue as of the last heartbeat: counts, the age of its oldest event in seconds and the
    nodes."""

    waiting: int = 0
    retrying: int = 0
    retried: int = 0
    dead: int = 0
    dead_now: int = 0
    discarded: int = 0
    oldest_age: float | None = None
    nodes: tuple[dict[str, Any], ...] = ()


class Heard(NamedTuple):
    """The answer to a heartbeat, see the script BEAT.

    counters, about: of each node, the latter only now and then; consumers: what each of them pends;
    next_due: milliseconds until the next retry, -1 if there is none; counts: the rest.
    """

    counters: dict[bytes, bytes]
    about: dict[bytes, bytes]
    consumers: dict[bytes, int]
    next_due: int
    counts: View

    def view(self, ages: Mapping[bytes, float], about: Mapping[bytes, bytes]) -> View:
        """The queue, with its nodes; ages: seconds since their last heartbeats; about: what is
        known of them."""
        nodes = [
            {
                "name": name.decode(errors="replace"),
                "age": round(ages[name], 3),
                **_facts(about.get(name, b"{}")),
            }
            for name in sorted(self.counters)
        ]
        return self.counts._replace(nodes=tuple(nodes))


def heard_in(answer: list[Any]) -> Heard:
    """What an answer says."""
    counters, about, consumers, next_due, oldest, counts, retrying, dead_now = answer
    waiting, retried, dead, discarded = (int(number or 0) for number in counts)
    return Heard(
        _pairs(counters),
        _pairs(about),
        _pairs(consumers),
        next_due,
        View(
            waiting,
            retrying,
            retried,
            dead,
            dead_now,
            discarded,
            None if oldest < 0 else oldest / 10_000,
        ),
    )


def _pairs(flat: list[Any]) -> dict[bytes, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _facts(text: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(text)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}
