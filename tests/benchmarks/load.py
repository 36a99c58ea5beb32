"""The loads over HTTP: wrk, idle connections, and a client of /ping."""

from __future__ import annotations

import http.client
import json
import select
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .processes import TIMEOUT, CheckFailed
from .servers import CoreWatch, Server, Shares

EVENT = b'{"Hello": "World"}'
ANSWER = {"message": "Event received", "result": True}
JSON = "application/json"
NDJSON = "application/x-ndjson"
BATCH = [b'{"Hello": "%05d"}' % number for number in range(1000)]
EVENTS, HELLO, PING = "/events", "/hello", "/ping"
LUA = Path(__file__).with_name("load.lua")


@dataclass(frozen=True)
class Flood:
    """The result of a wrk run: events, or requests without one, that were answered 2xx; those that
    may have been in flight; the 99th percentile of the latency, in seconds."""

    events: int
    in_flight: int
    seconds: float
    p99: float
    shares: Shares

    @property
    def rate(self) -> float:
        return self.events / self.seconds


class Wrk:
    """A run of wrk, which starts when this is made: one thread posts events to a server, or gets
    another path."""

    def __init__(
        self,
        server: Server,
        seconds: int,
        connections: int = 32,
        events: list[bytes] | None = None,
        *,
        differing: bool = False,
        path: str = EVENTS,
    ) -> None:
        self._server = server
        self._path = path
        self._connections = connections
        self._seconds = seconds
        self._per_request = len(events or [EVENT])
        with ExitStack() as stack:
            body = stack.enter_context(tempfile.NamedTemporaryFile())
            body.write(b"\n".join(events) if events else EVENT)
            body.flush()
            fields = {"Content-Type": NDJSON if events else JSON, **server.peer.headers}
            posted = (
                *(body.name, "differing" if differing else "alike"),
                *(f"{name}: {value}" for name, value in fields.items()),
            )
            self._counted = self._count()
            self._watch = CoreWatch(server)
            self._process = subprocess.Popen(
                [
                    *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(LUA)),
                    # By default, answers after more than 2 s are errors.
                    *("--timeout", f"{TIMEOUT:.0f}s"),
                    *(f"http://127.0.0.1:{server.port}", "--", path),
                    *(posted if path.startswith(EVENTS) else ()),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            stack.callback(end, self._process)
            self._stack = stack.pop_all()

    def __enter__(self) -> Wrk:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def _count(self) -> int:
        """How many such requests the server has counted so far; for HELLO, including this one."""
        if self._path != HELLO:
            return self._server.settled_count()
        self._server.rest()
        return self._server.next_number()

    def result(self) -> Flood:
        """Wait for its end, and check that the server has counted the requests that wrk saw answered."""
        try:
            output = self._process.communicate(timeout=self._seconds + TIMEOUT)[0].decode()
        except subprocess.TimeoutExpired:
            self._server.fail("wrk does not end")
        shares = self._watch.shares()
        try:
            summary = json.loads(output.splitlines()[-1])
        except (IndexError, ValueError):
            raise CheckFailed(f"wrk failed:\n{output}") from None
        if any(summary["errors"].values()):
            self._server.fail(f"errors in a wrk run: {summary['errors']}")
        answered = summary["requests"] * self._per_request
        in_flight = self._count() - self._counted - answered - (self._path == HELLO)
        # Pings are not counted.
        in_flight += answered if self._path == PING else 0
        # At its end, wrk closes its connections without counting the answers in flight, but the
        # server has counted their requests: at most one per connection.
        if not 0 <= in_flight <= self._connections * self._per_request:
            self._server.fail(
                f"wrk saw {answered} events answered, the server counted {in_flight:+d}; "
                f"only 0 to {self._connections * self._per_request} more are possible"
            )
        seconds = summary["microseconds"] / 1e6
        # wrk ignores requests that are never answered; this is the mean of all (Little's law).
        mean = self._connections * seconds / max(1, summary["requests"])
        return Flood(answered, in_flight, seconds, max(mean, summary["p99"] / 1e6), shares)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process, if it still runs."""
    process.kill()
    process.wait()


def check_exactly(server: Server, valid: int = 100, invalid: int = 5, crowd: int = 32) -> None:
    """Check every answer and the count: one connection, invalid events too, and many connections."""
    before = server.settled_count()
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(server.connect())) for _ in range(crowd)]
        for _ in range(valid):
            ask(server, connections[0], EVENT)
            check_answer(server, connections[0])
        for _ in range(invalid):
            ask(server, connections[1], EVENT[:-1])
            response = connections[1].getresponse()
            body = response.read()
            if response.status != 400:
                server.fail(f"answers invalid JSON {response.status} {body!r}")
        _check_count(server, before, valid, f"{valid} valid and {invalid} invalid events")
        # A wrk run would not show an occasional loss.
        for _ in range(valid):
            for connection in connections:
                ask(server, connection, EVENT)
            for connection in connections:
                check_answer(server, connection)
        together = valid * crowd
        _check_count(
            server, before + valid, together, f"{together} events over {crowd} connections"
        )


def _check_count(server: Server, before: int, wanted: int, what: str) -> None:
    if (gained := server.settled_count() - before) != wanted:
        server.fail(f"has counted {gained} of {what}")


def ask(server: Server, connection: http.client.HTTPConnection, body: bytes) -> None:
    """Post a body."""
    connection.request("POST", EVENTS, body, {"Content-Type": JSON, **server.peer.headers})


def check_answer(server: Server, connection: http.client.HTTPConnection) -> None:
    """Read the answer to an event, and check it."""
    response = connection.getresponse()
    closes, body = response.will_close, response.read()
    if response.status != 200 or json.loads(body) != ANSWER:
        server.fail(f"answers a valid event {response.status} {body!r}")
    if closes:
        server.fail("closes the connection after a valid event")


@contextmanager
def idle_connections(server: Server, number: int) -> Iterator[None]:
    """Keep connections open that have sent one event each; check that none is closed."""
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(server.connect())) for _ in range(number)]
        for connection in connections:
            ask(server, connection, EVENT)
            check_answer(server, connection)
        yield
        poll = select.poll()
        for connection in connections:
            poll.register(connection.sock, select.POLLIN)
        if closed := len(poll.poll(0)):
            server.fail(f"has closed {closed} of {number} idle connections")


def pings(server: Server, is_running: Callable[[], bool], interval: float = 0.005) -> list[float]:
    """Seconds until each answer of /ping while a load runs, every tenth on a new connection.

    Requests that fall due while an answer is awaited are not sent, but they would have waited, too,
    and are counted so: a stall must not count once because it also stalls the client.
    """
    taken: list[float] = []
    connection = server.connect()
    due = time.perf_counter()
    requests = 0
    try:
        while is_running():
            time.sleep(max(0.0, due - time.perf_counter()))
            if requests % 10 == 0:
                connection.close()
            requests += 1
            connection.request("GET", PING)
            response = connection.getresponse()
            if (response.status, response.read()) != (200, b"OK\n"):
                server.fail(f"answers /ping {response.status}")
            answered = time.perf_counter()
            while due < answered:
                taken.append(answered - due)
                due += interval
    finally:
        connection.close()
    return taken


def p99(taken: list[float]) -> float:
    """The 99th percentile."""
    return statistics.quantiles(taken, n=100, method="inclusive")[98]


def first_answer(port: int, path: str, process: subprocess.Popen[bytes]) -> float:
    """Ask every millisecond until the first answer 200; returns its time by `perf_counter`."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    until = time.perf_counter() + TIMEOUT
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as sock:
                sock.sendall(request)
                if sock.recv(65536).startswith(b"HTTP/1.1 200 "):
                    return time.perf_counter()
        except ConnectionError:
            pass
        if process.poll() is not None or time.perf_counter() > until:
            raise CheckFailed(f"no answer 200 from {path}; exit status {process.poll()}")
        time.sleep(0.001)
