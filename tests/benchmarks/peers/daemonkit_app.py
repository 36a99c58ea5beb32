"""Daemonkit, both over HTTP and over UDP."""

from typing import Any

from daemonkit import Daemon

app = Daemon("benchmark")
count = 0


@app.on_event
def handle(event: Any) -> None:
    global count
    count += 1


@app.route("/count")
def counted() -> dict[str, int]:
    return {"count": count}
