"""Decorator use as users write it; checked by mypy --strict, never run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typing_extensions import assert_type

from daemonkit import Daemon, Done, EventMeta, PingError, Slave
from daemonkit.testing import Client, running

app = Daemon("typed", config="cfg.yaml")
app.alert("disk", "OK", "room")


@app.slave
def bare(slave: Slave) -> None:
    slave.logger.info("%s", slave.master.config["url"])
    slave.send_event_to_juggler("host", "service", "OK", "text")


@app.slave(every=60, name="sweeper", backoff=5)
def periodic() -> int:
    return 1


@app.slave(
    restart="always", backoff=(1, 60), max_restarts=None, within=60, critical=False,
    after=["bare"], timeout=30,
)  # fmt: skip
def supervised(slave: Slave) -> None:
    slave.heartbeat()
    assert_type(slave.sleep(5), bool)
    assert_type(slave.run_slave(periodic, name="owned"), Slave | None)
    raise Done("no more work")


@app.slave(after="supervised", bound=True, group="link", stop_timeout=5, ends_daemon=True)
def bound() -> None: ...


@app.slave
async def asynchronous(slave: Slave) -> None: ...


@app.slave
class Worker(Slave):
    def __init__(self, url: str) -> None:
        self.url = url

    def run(self) -> None:
        while not self.shutdown.wait(1):
            self.logger.info(self.url)

    def status(self) -> dict[str, Any]:
        return {**super().status(), "url": self.url}


@app.on_event
def handle(event: dict[str, Any]) -> None: ...


@app.on_event(threads=4)
def with_meta(event: dict[str, Any], meta: EventMeta) -> None:
    assert_type(meta.peer, str | None)


@app.on_event(batch=500, linger=0.2, retries=3, backoff=0.5)
def batched(events: list[dict[str, Any]]) -> None: ...


@app.status_field
def answer() -> int:
    return 42


@app.status_field(name="other")
def named() -> str:
    return "x"


@app.on_ping
def healthy() -> str:
    raise PingError("database is away", 503)


@app.main
def main() -> None: ...


@app.on_start
@app.on_stop
@app.on_reload
def hook() -> None: ...


@app.route("/hello")
def hello() -> dict[str, str]:
    return {"hello": "world"}


slave_function: Callable[[Slave], None] = bare
assert_type(periodic(), int)
assert_type(Worker("x").url, str)
assert_type(answer(), int)
assert_type(named(), str)
assert_type(hello(), dict[str, str])

app.add_slave(periodic)
app.slave(5)  # type: ignore[call-overload]
app.slave(restart="sometimes")  # type: ignore[call-overload]
app.slave(bound="conn")  # type: ignore[call-overload]
app.slave(restarts=5)  # type: ignore[call-overload]
app.on_event(timeout="5")  # type: ignore[call-overload]
app.on_event(retries="5")  # type: ignore[call-overload]
app.status_field(handle)  # type: ignore[type-var]
app.on_start(5)  # type: ignore[call-overload]


class Styled(Daemon):
    def run(self) -> None:
        worker = self.run_slave(Worker, "http://x", timeout=30)
        assert_type(worker, Slave | None)
        assert_type(self.stop_slave("Worker", 5), bool)
        assert_type(self.start_slave("Worker"), bool)
        assert_type(self.restart_slave("Worker", timeout=5), bool)
        self.forget_slave("Worker")

    def process_event(self, event: Any, meta: Any = None) -> None:
        super().process_event(event, meta)

    def status(self) -> dict[str, Any]:
        status = super().status()
        status["awesome_status"] = 42
        return status

    def ping(self) -> str:
        return "OK\n"


with running(Styled(), {"url": "x"}) as client:
    assert_type(client, Client)
