"""For users' tests: a daemon running in the test's own process, and a client to talk to it."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests

from .app import Daemon
from .config.in_force import COMMAND_LINE, bind_config
from .config.loading import ConfigSource, Given, Override
from .monitoring.alerts.alert import Alert
from .system.outgoing import open_session
from .system.sockets import format_address
from .text import describe


class Client:
    """Talks to a running daemon.

    host, port: where it listens; timeout: seconds for each call; exit_status: see `running`;
    alerts: service, status and description of each alert that would have been sent so far.
    """

    def __init__(self, host: str, timeout: float, port: int = 0) -> None:
        self.host, self.port = host, port
        self.timeout = timeout
        self.exit_status: int | None = None
        self.alerts: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        """The beginning of every address, without a slash at its end."""
        return f"http://{format_address(self.host, self.port)}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET a path; takes the options of `requests.get`."""
        return self._request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        """POST to a path; takes the options of `requests.post`."""
        return self._request("POST", path, **options)

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        with open_session() as session:
            return session.request(method, self.url + path, timeout=self.timeout, **options)

    def _record(self, alert: Alert) -> None:
        sent = (alert.service, alert.status, alert.description)
        if not alert.is_repeated or sent not in self.alerts:
            self.alerts.append(sent)

    def send_event(self, event: Any) -> None:
        """Send an event over HTTP; raises requests.HTTPError when it is refused."""
        self.post("/events", json=event).raise_for_status()

    def send_datagram(self, data: bytes) -> None:
        """Send one UDP datagram."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.sendto(data, (self.host, self.port))

    def status(self) -> dict[str, Any]:
        """The `message` of `/status`."""
        message: dict[str, Any] = self.get("/status").json()["message"]
        return message

    def wait_until(self, condition: Callable[[], Any], what: str = "the condition") -> Any:
        """Wait until `condition()` is true, and return it; raises TimeoutError."""
        until = time.monotonic() + self.timeout
        while not (result := condition()):
            if time.monotonic() > until:
                raise TimeoutError(f"{what} did not come true within {self.timeout:g} s")
            time.sleep(0.005)
        return result


@contextmanager
def running(
    app: Daemon | Callable[..., Daemon], config: ConfigSource = None, *, timeout: float = 10.0
) -> Iterator[Client]:
    """Run a daemon in this process, on a free loopback port, for the time of a `with` block.

    app: the daemon, or a factory, which is called with `config` in force and given the user's part
    of it if it takes a parameter; config: a file's path in place of the daemon's own, or a mapping
    to merge over that. Its `host` and `port` are ignored, unless a mapping sets them. timeout:
    seconds for starting, and for each of the client's calls.
    Logging and signals are left alone. The alerts of `app.alert` and of conditions aren't sent, but
    recorded in the client's `alerts`, without `alert_hold`. After the block, the client's
    `exit_status` is what the process's would be. Raises what `start` would report: StartError,
    ConfigError and so on; and TimeoutError when it neither starts nor stops in time.
    """
    overlay = config if isinstance(config, Mapping) else None
    path = None if isinstance(config, Mapping) or config is None else os.fspath(config)
    given = (overlay or {}).get("master") or {}
    overrides = tuple(
        Override(f"master.{name}", text, "testing.running", raw=raw)
        for name, text, raw in (("host", "127.0.0.1", True), ("port", "0", False))
        if name not in given
    )
    configuration = Given(path, overrides, overlay)
    if isinstance(app, Daemon):
        app._configure(configuration)
    else:
        app = _make(app, configuration)
    result: list[int | BaseException] = []
    started = threading.Event()

    def serve() -> None:
        try:
            result.append(app.serve(started))
        except BaseException as error:
            result.append(error)
        finally:
            started.set()

    client = Client(app.master_config["host"], timeout)
    app._assembly.alerting.recorder = client._record
    thread = threading.Thread(target=serve, name="main", daemon=True)
    thread.start()
    try:
        if not started.wait(timeout):
            raise TimeoutError(f"the daemon did not start within {timeout:g} s")
        _raise(result)
        client.port = app.master_config["port"]
        yield client
    finally:
        app.stop()
        thread.join(app.master_config["shutdown_timeout"] + timeout)
        if thread.is_alive():
            raise TimeoutError("the daemon did not stop; is its run() or a hook still busy?")
        client.exit_status = next((r for r in result if isinstance(r, int)), None)


def _make(factory: Callable[..., Daemon], given: Given) -> Daemon:
    if not callable(factory):
        raise TypeError(f"running takes a Daemon or a factory of one, not {describe(factory)}")
    token = COMMAND_LINE.set(given)
    try:
        made = bind_config(factory, "running")()
    finally:
        COMMAND_LINE.reset(token)
    if not isinstance(made, Daemon):
        raise TypeError(f"the factory must return a Daemon, not {describe(made)}")
    return made


def _raise(result: list[Any]) -> None:
    for outcome in result:
        if isinstance(outcome, BaseException):
            raise outcome
