"""The servers: how each is started, watched, asked for its count, and stopped."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from daemonkit.config.defaults import SETTINGS

from .peers.computing import PACE, ROUNDS, SIZE, THREAD, shared_words
from .processes import (
    TIMEOUT,
    CheckFailed,
    core_times,
    end_group,
    ends,
    field,
    own_seconds,
    rss_kib,
    spawn,
)

PEERS = Path(__file__).parent / "peers"
WINDOW = 0.01
"""Seconds; a server that uses its core for less than a tenth of them is at rest."""
QUIET_WINDOWS = 3
LONG_DRAIN = 180.0
"""Seconds until an engine's queue must be empty."""
PROC_TABLES = ("/proc/net/udp", "/proc/net/udp6")


@dataclass(frozen=True)
class Peer:
    """One implementation of the job: its name, and its command for a port."""

    name: str
    command: Callable[[int], Sequence[str]]
    ready_path: str = "/count"
    is_ours: bool = False
    """Whether it is daemonkit, which can be asked for its count even when it is tested over UDP."""
    is_durable: bool = False
    """Whether it keeps its events in a file."""
    is_shared: bool = False
    """Whether its events wait in an engine, where they may be long after the load has ended."""
    computes: bool = False
    """Whether one of its threads computes in pure Python all the time."""
    token: str = ""
    """What senders of events have to show, if anything."""

    @property
    def headers(self) -> dict[str, str]:
        """The header fields that its events need."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def with_queue(self, port: int, queue: Path | None) -> Sequence[str]:
        """Its command for a port and, if it is durable, the file."""
        kept = ("--set", f"master.queue={queue}") if self.is_durable else ()
        return *self.command(port), *kept


def _script(name: str, module: str, *options: str) -> Peer:
    return Peer(name, lambda port: ("-m", f"{__package__}.peers.{module}", str(port), *options))


def _daemonkit(app: str, *settings: str, is_durable: bool = False, token: str = "") -> Peer:
    def command(port: int) -> Sequence[str]:
        given = (f"port={port}", "log_level=WARNING", *settings)
        options = [option for setting in given for option in ("--set", f"master.{setting}")]
        return "-m", "daemonkit", "run", f"{PEERS / app}:app", *options

    return Peer(
        "daemonkit", command, ready_path="/ready", is_ours=True, is_durable=is_durable, token=token
    )


DAEMONKIT = _daemonkit("daemonkit_app.py")
DURABLE = replace(DAEMONKIT, is_durable=True)
STUCK = _daemonkit("daemonkit_stuck.py", is_durable=True)
DRAINING = _daemonkit("daemonkit_draining.py", is_durable=True)
FILLING = replace(STUCK, is_durable=False)
TOKEN = "a-token-for-the-benchmark"
WITH_TOKEN = _daemonkit(
    "daemonkit_app.py",
    f"tokens={{load: !secret {TOKEN}}}",
    # Datagrams carry no token.
    "intake=[http]",
    token=TOKEN,
)
MANY_SLAVES = _daemonkit("daemonkit_slaves.py")
WITH_META = _daemonkit("daemonkit_meta.py")
WITH_HOOK = _daemonkit("daemonkit_hook.py")
THREADS, CONNECTIONS = (
    str(SETTINGS[name].default) for name in ("http_threads", "connection_limit")
)
WAITRESS = _script("Flask on waitress", "flask_waitress", THREADS, CONNECTIONS)
SAME_APP = _script("the same app on waitress", "daemonkit_waitress", THREADS, CONNECTIONS)
GUNICORN = Peer(
    "Flask on gunicorn",
    lambda port: (
        *("-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", THREADS),
        f"{__package__}.peers.flask_app:app",
    ),
)
STARLETTE = _script("Starlette on uvicorn", "starlette_uvicorn")
AIOHTTP = _script("aiohttp", "aiohttp_server")
FASTAPI = _script("FastAPI on uvicorn", "fastapi_uvicorn")
HTTP_PEERS = (DAEMONKIT, STARLETTE, AIOHTTP, FASTAPI, WAITRESS, GUNICORN)

UDP_BARE = _script("bare loop", "udp_bare")
UDP_ASYNCIO = _script("asyncio", "udp_asyncio")
UDP_UVLOOP = _script("uvloop", "udp_asyncio", "--uvloop")
UDP_SOCKETSERVER = _script("socketserver", "udp_socketserver")
UDP_PEERS = (DAEMONKIT, UDP_BARE, UDP_UVLOOP, UDP_SOCKETSERVER, UDP_ASYNCIO)


def computing(peer: Peer) -> Peer:
    """The same peer with a thread that computes."""
    return replace(peer, computes=True)


def free_port() -> int:
    """A port that is free for TCP and for UDP."""
    for _ in range(100):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind(("127.0.0.1", 0))
            with suppress(OSError):
                udp.bind(tcp.getsockname())
                port: int = tcp.getsockname()[1]
                return port
    raise CheckFailed("there is no port that is free for both TCP and UDP")


def wait_until(
    condition: Callable[[], Any], what: str, interval: float = 0.005, timeout: float = TIMEOUT
) -> Any:
    """Wait until `condition()` is true, and return it."""
    until = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > until:
            raise CheckFailed(f"{what} did not come true within {timeout:g} s")
        time.sleep(interval)
    return result


class Server:
    """A running peer; a `with` block begins once it is ready, and stops it."""

    def __init__(
        self, peer: Peer, cores: Set[int], *, udp: bool = False, queue: Path | None = None
    ) -> None:
        self.peer = peer
        self.cores = cores
        self.port = free_port()
        self._udp = udp
        with ExitStack() as stack:
            self._log = stack.enter_context(tempfile.TemporaryFile())
            pace = os.memfd_create("pace")
            stack.callback(os.close, pace)
            os.ftruncate(pace, SIZE)
            self._words = shared_words(pace)
            self._process = spawn(
                peer.with_queue(self.port, queue),
                cores,
                {PACE: str(pace)} if peer.computes else {},
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=(pace,),
            )
            stack.callback(end_group, self._process)
            self._stack = stack.pop_all()
        self.pid = self._process.pid

    def __enter__(self) -> Server:
        try:
            if not self._udp or self.peer.is_ours:
                wait_until(self._answers, f"{self.peer.name} answering {self.peer.ready_path}")
            if self._udp:
                wait_until(self._is_bound, f"{self.peer.name} having its UDP socket")
            if self.peer.computes:
                wait_until(self.rounds, f"{self.peer.name} computing")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            # It doesn't answer, or has ended.
            if isinstance(error, OSError | http.client.HTTPException):
                self.fail(repr(error))
        finally:
            self.close()

    def close(self) -> None:
        """End it at once."""
        self._stack.close()

    def fail(self, text: str) -> NoReturn:
        """Raise CheckFailed, with the end of the server's output."""
        self._log.seek(0)
        output = self._log.read()[-2000:].decode(errors="replace").strip()
        raise CheckFailed(
            f"{self.peer.name}: {text}" + (f"\nIts output:\n{output}" if output else "")
        )

    def _alive(self) -> None:
        if (status := self._process.poll()) is not None:
            self.fail(f"it ended, exit status {status}")

    def _answers(self) -> bool:
        self._alive()
        with suppress(OSError, http.client.HTTPException):
            return self.get(self.peer.ready_path)[0] == 200
        return False

    def _is_bound(self) -> bool:
        self._alive()
        return self.kernel_drops() is not None

    def connect(self) -> http.client.HTTPConnection:
        """A connection, which its first request opens."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of a GET on a new connection."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """The status and the body of the answer to a request on a new connection."""
        connection = self.connect()
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def count(self) -> int:
        """How many events its consumer has counted so far."""
        counted: int = json.loads(self.get("/count")[1])["count"]
        return counted

    def next_number(self) -> int:
        """The number in the next answer of /hello, which counts its requests."""
        number: int = json.loads(self.get("/hello")[1])["number"]
        return number

    def drained_in(self) -> float:
        """Seconds from the first to the latest event that DRAINING has handled."""
        seconds: float = json.loads(self.get("/count")[1])["seconds"]
        return seconds

    def settled_count(self) -> int:
        """The consumer's count, once it no longer changes."""
        if self.peer.is_shared:
            waiting = f"the queue of {self.peer.name} being empty"
            wait_until(lambda: self.status()["events_queue"] == 0, waiting, 0.1, LONG_DRAIN)
        self.rest()
        seen = [self.count()]

        def settled() -> bool:
            seen.append(self.count())
            return seen[-1] == seen[-2]

        wait_until(settled, f"the count of {self.peer.name} no longer changing", 0.05)
        return seen[-1]

    def rounds(self) -> int:
        """How many rounds its computing thread has done so far."""
        done: int = self._words[ROUNDS]
        return done

    def status(self) -> dict[str, Any]:
        """The message of daemonkit's /status."""
        message: dict[str, Any] = json.loads(self.get("/status")[1])["message"]
        return message

    def kernel_drops(self) -> int | None:
        """Datagrams dropped at its socket; None while there is no such socket."""
        row = self._udp_row()
        return None if row is None else int(row[-1])

    def known_drops(self) -> int:
        """Datagrams known to be dropped: by the kernel or, with daemonkit, because the queue was full."""
        refused: int = self.status()["udp"]["refused"] if self.peer.is_ours else 0
        return (self.kernel_drops() or 0) + refused

    def _udp_row(self) -> list[str] | None:
        """The columns of its UDP socket in proc(5)."""
        ending = f":{self.port:04X}"
        for table in PROC_TABLES:
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                columns = line.split()
                if columns[1].endswith(ending):
                    return columns
        return None

    def cpu_seconds(self) -> float:
        """CPU time that it and its children have used."""
        return sum(
            # The clock of another process, see clock_getcpuclockid(3).
            time.clock_gettime((~pid << 3) | 2)
            for pid in self._pids()
        )

    def _pids(self) -> list[int]:
        """Its own process, and the children of its main thread."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [self.pid, *map(int, children.split())]

    def rest(self) -> float:
        """Wait until it has nothing more to do; the monotonic time at which that began."""
        # Beside a thread that computes, a full buffer of datagrams takes a peer a minute or two, and a
        # thread that only waits for the interpreter hardly uses a core.
        busy_timeout = TIMEOUT * (10 if self.peer.computes else 1)
        until = time.monotonic() + busy_timeout
        seconds, most = (
            (self._other_seconds, 0.0) if self.peer.computes else (self.cpu_seconds, WINDOW / 10)
        )
        rested, used, quiet = time.monotonic(), seconds(), 0
        while quiet < QUIET_WINDOWS:
            if time.monotonic() > until:
                self.fail(f"still busy {busy_timeout:g} s after the load has ended")
            time.sleep(WINDOW)
            used, used_before = seconds(), used
            if used - used_before > most or self._has_work():
                rested, quiet = time.monotonic(), 0
            else:
                quiet += 1
        return rested

    def _other_seconds(self) -> float:
        """CPU time that its threads have used, except the one that computes."""
        stats = [(task / "schedstat").read_text("ascii").split() for task in self._threads()]
        return sum(int(nanoseconds) for nanoseconds, *_ in stats) / 1e9

    def _threads(self) -> list[Path]:
        """The proc(5) folders of its threads, except the one that computes."""
        return [
            task
            for pid in self._pids()
            for task in Path(f"/proc/{pid}/task").iterdir()
            if int(task.name) != self._words[THREAD]
        ]

    def _has_work(self) -> bool:
        """Whether a thread is runnable or waits for the disk, or a datagram waits to be read."""
        states = [
            (task / "stat").read_text("ascii").rpartition(")")[2].split()[0]
            for task in self._threads()
        ]
        if "R" in states or "D" in states:
            return True
        row = self._udp_row()
        return row is not None and not row[4].endswith(":00000000")

    def rss_kib(self) -> int:
        """Resident memory, in KiB."""
        return rss_kib(self.pid)

    def voluntary_switches(self) -> int:
        """Voluntary context switches of all its threads so far."""
        return sum(
            field(task / "status", "voluntary_ctxt_switches")
            for task in Path(f"/proc/{self.pid}/task").iterdir()
        )

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> float:
        """Stop it with SIGTERM; returns the seconds until it has ended."""
        began = time.perf_counter()
        self._process.terminate()
        if not ends(self._process):
            self.fail(f"still runs {TIMEOUT:g} s after SIGTERM")
        taken = time.perf_counter() - began
        if status := self._process.wait():
            self.fail(f"exit status {status} on SIGTERM")
        return taken

    def stop_and_count(self) -> int:
        """Stop it; returns the count that it prints at its end."""
        self.stop()
        self._log.seek(0)
        try:
            counted: int = json.loads(self._log.read().splitlines()[-1])["count"]
        except (IndexError, ValueError, TypeError, KeyError):
            self.fail("no count at its end")
        return counted


@dataclass(frozen=True)
class Shares:
    """How the cores of a server were shared, in cores: what it used, and what others used, the
    hypervisor included, but not the load.

    A core that is idle while the server waits for the disk counts as the server's. pace: rounds per
    second of its computing thread; is_full: whether it should have used all of its core.
    """

    server: float
    others: float
    pace: float
    is_full: bool = True

    @property
    def undisturbed(self) -> float:
        """The share of a core that was available to the server."""
        return self.server if self.is_full else 1 - self.others


class CoreWatch:
    """Watches a server's cores until `shares` is called."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._before = self._now()

    def shares(self) -> Shares:
        """How they were shared."""
        now = self._now()
        seconds, server, load, rounds, busy, disk = (
            after - before for before, after in zip(self._before, now, strict=True)
        )
        others = max(0.0, busy - server - load) / seconds
        return Shares((server + disk) / seconds, others, rounds / seconds)

    def _now(self) -> tuple[float, ...]:
        server = self._server
        # The load comes from this process and its children; pinned, it isn't on these cores.
        load = own_seconds() if os.sched_getaffinity(0) <= server.cores else 0.0
        return (
            *(time.monotonic(), server.cpu_seconds(), load, server.rounds()),
            *core_times(server.cores),
        )
