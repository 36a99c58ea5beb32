from __future__ import annotations

import json

import pytest

from daemonkit.web.responses import RECEIVED, batch_received, envelope


def test_the_envelope_is_one_line_of_json() -> None:
    assert envelope("Grüße", False, phase="x") == (
        b'{"message": "Gr\\u00fc\\u00dfe", "result": false, "phase": "x"}\n'
    )
    assert json.loads(RECEIVED) == {"message": "Event received", "result": True}


@pytest.mark.parametrize(
    ("count", "message"), [(1, "1 event received"), (1000, "1000 events received")]
)
def test_a_batch_is_answered_with_its_size(count: int, message: str) -> None:
    assert json.loads(batch_received(count)) == {
        "message": message,
        "result": True,
        "accepted": count,
    }
