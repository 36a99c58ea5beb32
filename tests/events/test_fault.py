from __future__ import annotations

import logging

import pytest

from daemonkit import QueueFull, Unavailable
from daemonkit.events.fault import Fault


def test_a_fault_is_logged_when_it_begins_and_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    changes: list[None] = []
    fault = Fault(logging.getLogger("x"), "It is over", lambda: changes.append(None))
    assert fault.refusal is None
    refusal = fault.report("it broke", tolerable=True)
    fault.report("it broke", tolerable=True)

    assert (type(refusal), str(refusal), refusal.retry_after) == (Unavailable, "It broke", 5)
    assert fault.problem is not None
    assert tuple(fault.problem) == ("it broke", True)
    assert str(fault.refusal) == "It broke"
    fault.end()
    fault.end()
    assert (fault.problem, fault.refusal, len(changes)) == (None, None, 2)
    assert [record.getMessage() for record in caplog.records] == ["It broke", "It is over"]


def test_another_text_is_another_fault(caplog: pytest.LogCaptureFixture) -> None:
    fault = Fault(logging.getLogger("x"), "", lambda: None, QueueFull)
    assert isinstance(fault.report("one"), QueueFull)
    fault.report("two", error=ValueError("why"))

    assert [record.getMessage().splitlines()[0] for record in caplog.records] == ["One", "Two"]
    assert "ValueError: why" in caplog.text
