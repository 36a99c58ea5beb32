"""Daemonkit that records when it handled its first and its latest event."""

from time import perf_counter
from typing import Any

from daemonkit import Daemon

app = Daemon("benchmark")
count = 0
began = last = 0.0


@app.on_event
def handle(event: Any) -> None:
    global count, began, last
    last = perf_counter()
    count += 1
    if count == 1:
        began = last


@app.route("/count")
def counted() -> dict[str, float]:
    return {"count": count, "seconds": last - began}
