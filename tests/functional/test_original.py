"""A program of the original runs with only the name of the package changed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

from .process import Process

PROGRAM = """
import time

from daemonkit.exceptions import PingError
from daemonkit.master import Master
from daemonkit.slave import Slave


class MyWorker(Slave):
    def run(self):
        while not self.shutdown.wait(0.01):
            self.send_event_to_juggler("host", "service", "OK", "fine")

    def status(self):
        return {"mood": "good"}


class MyDaemon(Master):
    def run(self):
        self.seen = []
        self.run_slave(MyWorker)
        while not self.shutdown.is_set():
            self.logger.info("I'm running")
            time.sleep(0.05)
        self.logger.info("I'm done")

    def process_event(self, event):
        self.seen.append(event)

    def status(self):
        status = super().status()
        status["awesome_status"] = 42
        status["seen"] = self.seen
        return status

    def ping(self):
        if "bad" in self.seen:
            raise PingError("seen something bad", 418)
        return super().ping()


if __name__ == "__main__":
    MyDaemon(config="cfg.yaml").start()
"""

CONFIG = """
master:
    port: 0
    host: '127.0.0.1'
    hidden_opts: ['yt_token', 'other_tokens']
    juggler_url: http://127.0.0.1:9/
yt_token: AAAA-123123
other_tokens:
    hello: AAAA-asdasdasd
"""


def test_the_original_s_example_runs(spawn: Callable[..., Process], tmp_path: Path) -> None:
    daemon = spawn("program.py", program__py=PROGRAM, cfg__yaml=CONFIG).wait_ready()
    daemon.wait_for("MyDaemon +INFO +I'm running\n")
    daemon.send_event({"Hello": "World"})
    daemon.send_datagram(b"[1]")
    daemon.wait_until(lambda: len(daemon.status()["seen"]) == 2)
    ping = daemon.get("/ping")
    daemon.send_event("bad")
    daemon.wait_until(lambda: daemon.get("/ping").status_code == 418)
    status = daemon.status()

    assert (ping.status_code, ping.text) == (200, "OK\n")
    assert daemon.get("/ping").text == "seen something bad"
    assert status["name"] == "MyDaemon"
    assert status["awesome_status"] == 42
    assert {"Hello": "World"} in status["seen"]
    assert status["config"] == {"yt_token": "*** HIDDEN ***", "other_tokens": "*** HIDDEN ***"}
    (worker,) = status["slaves"]
    assert (worker["name"], worker["state"], worker["mood"]) == ("MyWorker", "running", "good")
    assert worker["started"] is not None
    assert daemon.stop(signal.SIGINT) == 0
    assert "I'm done" in daemon.out
