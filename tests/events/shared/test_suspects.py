"""That the events of a dead node are handled alone, see test_queue.py and test_fetcher.py."""

from __future__ import annotations

import logging
import threading
from typing import Any

from daemonkit.events.durable.rows import StoredBatch
from daemonkit.events.shared.in_flight import Held, InFlight
from daemonkit.events.shared.node import Node
from daemonkit.events.shared.suspects import Suspects
from daemonkit.events.waiting import Waiting


def test_what_others_took_over_meanwhile_is_not_waited_for() -> None:
    node, in_flight = Node(1.0), InFlight()
    handed: list[Any] = []
    suspects = Suspects(
        *(node, in_flight, Waiting(lambda entry: entry), threading.Condition()),
        *(logging.getLogger("app"), lambda: False, lambda *given: handed.append(given)),
        *(lambda: None, lambda *_: None),
    )
    held = Held(b"1-0", StoredBatch(1000, 1, 0.5, "app", None, b"1"), b"")

    class Link:
        """Takes so long to answer that the node is taken for dead."""

        def run(self, *_: Any) -> int:
            with in_flight.lock:
                node.rename()
                in_flight.abandon()
                suspects.forget()
            return 1

    in_flight.add(held)
    suspects.add(held, b"-1 0")
    suspects.handle(Link())  # type: ignore[arg-type]

    assert (handed, bool(suspects), suspects._in_work()) == ([], False, 0)
