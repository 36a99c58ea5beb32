"""Daemonkit with a handler that takes the events' circumstances."""

from typing import Any

from daemonkit import Daemon, EventMeta

app = Daemon("benchmark")
count = 0


@app.on_event
def handle(event: Any, meta: EventMeta) -> None:
    global count
    count += 1


@app.route("/count")
def counted() -> dict[str, int]:
    return {"count": count}
