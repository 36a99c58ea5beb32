"""Daemonkit with a handler that never returns, so that every event stays in the queue."""

from threading import Event
from typing import Any

from daemonkit import Daemon

app = Daemon("benchmark")


@app.on_event
def handle(event: Any) -> None:
    Event().wait()
