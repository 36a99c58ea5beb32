from __future__ import annotations

import pytest
from redis.crc import key_slot

from daemonkit.events.shared.layout import keys_of, prefix_of, script


@pytest.mark.parametrize("name", ["app", "my daemon", "a}b{c", "ünï", "x" * 200, "a:b@c"])
def test_the_keys_of_a_queue_are_in_one_slot(name: str) -> None:
    keys = keys_of(prefix_of(name), "host:1:ff")

    assert len({key_slot(key.encode()) for key in keys}) == 1
    assert all(key.startswith("{daemonkit:") and key.count("}") == 1 for key in keys)
    assert len(set(keys)) == len(keys)


def test_names_that_differ_have_keys_that_differ() -> None:
    assert prefix_of("a") != prefix_of("b")
    assert prefix_of("a}") != prefix_of("a")


def test_a_script_says_whether_it_runs_when_memory_is_full() -> None:
    assert script("return 1").text.startswith("#!lua flags=allow-oom\n")
    assert script("return 1", when_full=False).text.startswith("#!lua\n")
    assert script("return 1").sha != script("return 2").sha
