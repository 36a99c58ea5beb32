from __future__ import annotations

import os

from daemonkit.events.shared.node import Node, awake, new_name


def test_a_name_says_where_a_node_is_and_is_its_own() -> None:
    assert f":{os.getpid()}:" in new_name()
    assert new_name() != new_name()


def test_a_node_may_hand_out_for_a_while_after_a_heartbeat() -> None:
    node = Node(10.0)
    assert not node.is_fresh
    node.beat(awake())
    assert node.is_fresh
    node.beat(awake() - 6.1)
    assert not node.is_fresh


def test_a_node_that_was_taken_for_dead_begins_anew() -> None:
    node = Node(10.0)
    node.beat(awake())
    node.is_joined = True
    name = node.name
    node.rename()

    assert node.name != name
    assert (node.is_fresh, node.is_joined) == (False, False)
