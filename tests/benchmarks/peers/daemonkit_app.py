"""Daemonkit, both over HTTP and over UDP."""

from itertools import count as counting
from typing import Any

from daemonkit import Daemon, Slave

from . import computing

app = Daemon("benchmark")
count = 0
numbers = counting()


@app.on_event
def handle(event: Any) -> None:
    global count
    count += 1


@app.route("/count")
def counted() -> dict[str, int]:
    return {"count": count}


@app.route("/hello")
def hello() -> dict[str, Any]:
    return {"Hello": "World", "number": next(numbers)}


if computing.is_wanted():

    @app.slave
    def compute(slave: Slave) -> None:
        computing.compute(slave.shutdown)
