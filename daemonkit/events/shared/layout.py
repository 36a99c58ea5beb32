"""The shared queue's layout in the engine, and how the scripts that change it are made.

All keys have one hash tag, so they are in one slot.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from urllib.parse import quote

LAYOUT = 1
"""Raised when an older daemonkit could not use the keys any more."""
GROUP = "g"
RELEASED = "released"
"""The consumer that pends what nodes gave back when they stopped."""

_KEYS = {
    "stream": "entries: n events, s source, p who sent them, d NDJSON; or k id of a retry",
    "counts": "waiting, retried, dead, discarded, last (number of the last batch)",
    "handled": "entry -> 0 or 1 for each of its events, while some of them aren't handled",
    "suspects": "entry -> number of the event handled alone, and how often; of dead nodes' entries",
    "due": "event id -> when it is retried, in milliseconds",
    "queued": "event id -> entry of its retry",
    "failed": "event id -> JSON of a failed event",
    "attempts": "event id -> how many failed, since it was last retried by hand",
    "dead": "event id -> the same; dead letters in the order of their ids",
    "deaths": "event id -> number; dead letters in the order in which they became some",
    "nodes": "node -> heartbeats",
    "about": "node -> JSON of what it is and holds",
    "layout": "the version of all this",
}
"""What is in each key; the last part of its name is a node's: its last put, and the outcome."""


def prefix_of(name: str) -> str:
    """What the keys of a daemon's queue begin with."""
    # A brace would end the hash tag.
    return f"{{daemonkit:{quote(name, safe=' :@')}}}:"


def keys_of(prefix: str, putter: str) -> list[str]:
    """The keys of a daemon's queue; putter: the node whose puts are numbered."""
    return [*(prefix + key for key in _KEYS), f"{prefix}put:{putter}"]


class Script(NamedTuple):
    """A Lua script; sha: what the engine knows it by."""

    text: str
    sha: str


def script(body: str, *, when_full: bool = True) -> Script:
    """A script; when_full: whether it also runs when the engine has no memory left."""
    names = [*_KEYS, "put"]
    used = [(place, name) for place, name in enumerate(names, 1) if f"K_{name}" in body + _COMMON]
    head = "#!lua flags=allow-oom\n" if when_full else "#!lua\n"
    keys = "".join(f"local K_{name} = KEYS[{place}]\n" for place, name in used)
    text = head + keys + f"local GROUP = '{GROUP}'\n" + _COMMON + body
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


_COMMON = """
local function count(what, by) return redis.call('HINCRBY', K_counts, what, by) end
local function ones(bits) return select(2, string.gsub(bits, '1', '')) end
local function milliseconds()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
-- Tenths of milliseconds since 2020: event ids, a thousand to each, stay exact in JavaScript.
local function batches_now()
  local t = redis.call('TIME')
  return (t[1] - 1577836800) * 10000 + math.floor(t[2] / 100)
end
local function add(...)
  local number = math.max(batches_now(), (tonumber(redis.call('HGET', K_counts, 'last')) or 0) + 1)
  redis.call('HSET', K_counts, 'last', string.format('%.0f', number))
  return redis.call('XADD', K_stream, string.format('%.0f-0', number), ...)
end
local function owner(id)
  local pending = redis.call('XPENDING', K_stream, GROUP, id, id, 1)[1]
  return pending and pending[2]
end
-- Returns whether it was still there.
local function remove(id)
  redis.call('XACK', K_stream, GROUP, id)
  redis.call('HDEL', K_handled, id)
  redis.call('HDEL', K_suspects, id)
  return redis.call('XDEL', K_stream, id) == 1
end
local function forget(event)
  redis.call('HDEL', K_failed, event)
  redis.call('HDEL', K_attempts, event)
  redis.call('HDEL', K_queued, event)
end
"""
