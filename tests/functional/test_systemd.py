"""What systemd sees of a daemon: a real process, with this test in the role of systemd."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from .process import Process, seconds_of
from .tools import need

Spawn = Callable[..., Process]

APP = """
import os, threading, time
from daemonkit import Daemon, Slave
app = Daemon('app')
release = threading.Event()

@app.slave(timeout=app.config.get('timeout', 60))
def worker(slave):
    while not slave.shutdown.wait(0.05):
        if stuck.is_set():
            release.wait(60)
            stuck.clear()

@app.on_event
def handle(event):
    if event == 'hang':
        stuck.set()
    elif event == 'release':
        release.set()
    else:
        time.sleep(event)

stuck = threading.Event()
app.add_stop_hook(release.set)
"""


class Listener:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str | Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(
            str(address).replace("@", "\0", 1) if str(address)[0] == "@" else str(address)
        )
        self.socket.settimeout(60)
        self.messages: list[str] = []

    def read(self) -> str:
        message = self.socket.recv(4096).decode()
        self.messages.append(message)
        return message

    def wait_for(self, pattern: str) -> str:
        """Read until a message matches."""
        while not re.match(pattern, message := self.read()):
            pass
        return message

    def read_to_the_end(self) -> list[str]:
        """Everything that remains once the process has ended."""
        self.socket.setblocking(False)
        try:
            while True:
                self.read()
        except BlockingIOError:
            return self.messages

    def count(self, message: str) -> int:
        return self.messages.count(message)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    found = Listener(tmp_path / "notify")
    yield found
    found.socket.close()


@pytest.fixture
def run(spawn: Spawn, tmp_path: Path) -> Callable[..., Process]:
    def start(
        *options: str, environ: dict[str, str] | None = None, text: str = APP, **files: str
    ) -> Process:
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), **(environ or {})}
        return spawn(
            "-m", "daemonkit", "run", "mymod", "--port", "0", *options,
            mymod__py=text, env=env, **files,
        )  # fmt: skip

    return start


SLOW_START = """
@app.slave
class Slow(Slave):
    def __init__(self):
        while not os.path.exists('start'):
            time.sleep(0.01)

    def run(self):
        self.shutdown.wait()
"""


def test_the_phases_are_reported_in_order(run: Spawn, listener: Listener) -> None:
    daemon = run("--set", "master.drain_delay=0.3", text=APP + SLOW_START)
    # A phase that is over when the notifier gets its turn isn't reported.
    listener.wait_for("STATUS=starting")
    (daemon.folder / "start").touch()
    daemon.wait_ready()
    listener.wait_for("READY=1")
    daemon.send_event(2)
    daemon.send_signal(signal.SIGTERM)
    listener.wait_for("STATUS=stopped")
    daemon.wait()
    messages = [m.partition("\n")[0] for m in listener.read_to_the_end()]
    firsts = [
        "STATUS=starting",
        "READY=1",
        "STATUS=running",
        "STOPPING=1",
        "STATUS=draining: waiting for senders (drain_delay, 0.3 s)",
        "STATUS=stopping: waiting for event processor (events)",
        "STATUS=stopped",
    ]

    assert list(dict.fromkeys(message for message in messages if message in firsts)) == firsts
    assert messages.count("READY=1") == messages.count("STOPPING=1") == 1
    assert "EXTEND_TIMEOUT_USEC=15000000" in messages
    assert messages.index("EXTEND_TIMEOUT_USEC=15000000") > messages.index("STOPPING=1")
    assert not any(message.startswith("WATCHDOG") for message in messages)


def test_a_reload_is_reported_to_systemd_with_its_time(
    run: Spawn, listener: Listener, tmp_path: Path
) -> None:
    daemon = run("--config", "cfg.yaml", cfg__yaml="a: 1\n").wait_ready()
    listener.wait_for("READY=1")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    daemon.send_signal(signal.SIGHUP)
    message = listener.wait_for("RELOADING=1\n")
    listener.wait_for("READY=1")
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    moment = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)", message)

    assert moment is not None
    assert before < int(moment[1]) < after
    (tmp_path / "0" / "cfg.yaml").write_text("a: [")
    daemon.send_signal(signal.SIGHUP)
    listener.wait_for("RELOADING=1\n")
    listener.wait_for("READY=1")
    daemon.wait_for("Not reloaded")
    assert daemon.stop() == 0


def test_the_watchdog_is_fed_only_while_the_daemon_is_healthy(
    run: Spawn, listener: Listener
) -> None:
    daemon = run("--set", "timeout=1", environ={"WATCHDOG_USEC": "1000000"}).wait_ready()
    for _ in range(3):
        listener.wait_for("WATCHDOG=1")
    daemon.send_event("hang")
    listener.wait_for("STATUS=running; the slave worker is stalled")
    listener.messages.clear()
    listener.socket.settimeout(1.5)
    with pytest.raises(TimeoutError):
        listener.wait_for("WATCHDOG=1")
    assert daemon.get("/ping").text == "the slave worker is stalled\n"
    listener.socket.settimeout(60)
    daemon.send_event("release")
    listener.wait_for("WATCHDOG=1")
    listener.wait_for("WATCHDOG=1")

    assert daemon.out.count("The slave worker is stalled") == 1
    assert "release.wait(60)" in daemon.out
    assert daemon.out.count("The slave worker recovered after") == 1
    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


@pytest.mark.parametrize(("pid", "fed"), [("own", True), ("1", False)])
def test_a_watchdog_for_another_process_is_ignored(
    run: Spawn, listener: Listener, pid: str, fed: bool
) -> None:
    environ = {"WATCHDOG_USEC": "100000"} | ({"WATCHDOG_PID": pid} if pid != "own" else {})
    daemon = run(environ=environ).wait_ready()
    listener.wait_for("READY=1")
    if fed:
        listener.wait_for("WATCHDOG=1")
    else:
        daemon.wait_until(lambda: daemon.status()["uptime"] > 0.5)
    daemon.stop()

    assert ("WATCHDOG=1" in listener.read_to_the_end()) is fed


def test_an_abstract_socket_works_too(run: Spawn, tmp_path: Path) -> None:
    name = f"@daemonkit{tmp_path}"
    listener = Listener(name)
    daemon = run(environ={"NOTIFY_SOCKET": name}).wait_ready()
    listener.wait_for("READY=1")

    assert daemon.stop() == 0
    listener.wait_for("STOPPING=1")
    listener.socket.close()


@pytest.mark.parametrize(
    "address", ["/nowhere/notify", "@nobody-listens", "/" + "x" * 200, "vsock:2:1", "notify"]
)
def test_a_socket_that_nobody_listens_to_changes_nothing(run: Spawn, address: str) -> None:
    daemon = run(environ={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "100000"}).wait_ready()
    daemon.wait_until(lambda: daemon.status()["uptime"] > 0.3)

    assert daemon.stop() == 0
    assert daemon.err == ""


@pytest.fixture
def fillers(listener: Listener) -> Iterator[int]:
    """Fill the listener's socket; returns how many messages that took."""
    count, sent = 0, 1
    senders: list[socket.socket] = []
    while sent:
        # The messages in transit from one socket are limited, too, so this takes several.
        senders.append(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        senders[-1].setblocking(False)
        sent = 0
        try:
            while True:
                senders[-1].sendto(b"FILLER=1", listener.socket.getsockname())
                sent += 1
        except BlockingIOError:
            count += sent
    yield count
    for sender in senders:
        sender.close()


def test_a_full_socket_blocks_nothing_and_gets_the_message_later(
    run: Spawn, listener: Listener, fillers: int
) -> None:
    daemon = run(environ={"WATCHDOG_USEC": "200000"}).wait_ready()
    daemon.wait_until(lambda: daemon.status()["uptime"] > 1)
    answered = daemon.get("/ready").status_code
    for _ in range(fillers):
        assert listener.read() == "FILLER=1"
    listener.wait_for("READY=1")

    assert answered == 200
    assert listener.count("READY=1") == 1
    assert daemon.stop() == 0


def test_a_socket_that_stays_full_delays_the_stop_by_half_a_second_at_most(
    run: Spawn, listener: Listener, fillers: int
) -> None:
    daemon = run().wait_ready()
    daemon.send_signal(signal.SIGTERM)
    took = seconds_of(daemon.wait)

    assert fillers > 0
    assert daemon.wait() == 0
    assert took < daemon.soon(1.5)


ACTIVATED = """
import os, socket, sys
kinds = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
names = sys.argv[1].split(",")
made = []
for name in names:
    if name == "file":
        made.append(os.open("/dev/null", os.O_RDONLY))
    elif name != "closed":
        sock = socket.socket(socket.AF_INET, kinds[name])
        others = [m for m in made if not isinstance(m, int)]
        try:
            sock.bind(("127.0.0.1", others[0].getsockname()[1] if others else 0))
        except OSError:
            # The other kind's port of that number is in use: choose another.
            os.execv(sys.executable, sys.orig_argv)
        made.append(sock)
fds = [os.dup(m if isinstance(m, int) else m.fileno()) for m in made]
fds = [os.dup2(fd, 20 + n) for n, fd in enumerate(fds)]
os.closerange(3, 20)
for n, fd in enumerate(fds):
    os.dup2(fd, 3 + n, inheritable=True)
os.closerange(20, 40)
os.environ["LISTEN_FDS"] = str(len(names))
os.environ["LISTEN_PID"] = sys.argv[2].replace("own", str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""


@pytest.fixture
def activate(spawn: Spawn) -> Callable[..., Process]:
    """Run the app with sockets passed, as systemd does."""

    def start(names: str, pid: str = "own", text: str = APP) -> Process:
        return spawn(
            "-c", ACTIVATED, names, pid, "-m", "daemonkit", "run", "mymod", "--port", "0",
            mymod__py=text,
        )  # fmt: skip

    return start


@pytest.mark.parametrize("names", ["tcp,udp", "udp,tcp"])
def test_sockets_opened_by_systemd_are_used(activate: Spawn, names: str) -> None:
    show = "\n@app.status_field\ndef environ():\n    return sorted(os.environ)\n"
    daemon = activate(names, text=APP + show).wait_ready()
    daemon.send_event(0)
    daemon.send_datagram(b"0")
    daemon.wait_until(lambda: daemon.status()["events"]["handled"] == 2)
    status = daemon.status()

    assert f"Listening on 127.0.0.1:{daemon.port}, on sockets passed by systemd" in daemon.out
    address = {name: status["master_config"][name] for name in ("host", "port")}
    assert address == {"host": "127.0.0.1", "port": daemon.port}
    assert status["udp"]["received"] == 1
    assert not {"LISTEN_FDS", "LISTEN_PID"} & set(status["environ"])
    assert daemon.stop() == 0


def test_sockets_for_another_process_are_left_alone(activate: Spawn) -> None:
    daemon = activate("tcp,udp", "1").wait_ready()

    assert "on sockets passed by systemd" not in daemon.out
    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


KEPT = """
import os, sys
for number in (0, 1):
    os.dup2(int(sys.argv[1 + number]), 3 + number, inheritable=True)
os.environ |= {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}
os.execv(sys.executable, [sys.executable, *sys.argv[3:]])
"""
RECORDS_EVENTS = """
import os
from daemonkit import Daemon
app = Daemon("app")
notes = os.open(app.config["notes"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
app.add_slave(lambda slave: slave.shutdown.wait(), name="waits")
app.on_event(lambda event: os.write(notes, b"%d\\n" % event))
"""


class KeepAliveClient(threading.Thread):
    """Sends events and asks for health, on one connection until an answer says that it will be
    closed."""

    def __init__(self, port: int, number: int, pause: float) -> None:
        super().__init__(name=f"client-{number}")
        self.over = threading.Event()
        self.sent: list[int] = []
        self.faults: list[str] = []
        self._port, self._number, self._pause = port, number, pause

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=200)
        while not self.over.wait(self._pause):
            event = self._number * 1_000_000 + len(self.sent)
            for method, path, body in (("POST", "/events", str(event)), ("GET", "/ping", None)):
                try:
                    # It reconnects after an answer that says so.
                    connection.request(method, path, body)
                    answer = connection.getresponse()
                    text = answer.read().decode()
                    if answer.status != 200:
                        self.faults.append(f"{path}: {answer.status} {text}")
                except (OSError, http.client.HTTPException) as error:
                    self.faults.append(f"{path}: {error!r}")
                    connection.close()
            self.sent.append(event)
        connection.close()


def test_a_restart_on_passed_sockets_refuses_and_resets_nothing(
    spawn: Spawn, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = tcp.getsockname()[1]
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        fds = [tcp.fileno(), udp.fileno()]

        def start() -> Process:
            return spawn(
                *("-c", KEPT, *map(str, fds), "-m", "daemonkit", "run", "mymod"),
                *("--set", f"notes={notes}"),
                pass_fds=fds,
                mymod__py=RECORDS_EVENTS,
            ).wait_ready()

        daemon = start()
        # Some send all the time; others are idle when their connection is to be closed.
        clients = [KeepAliveClient(port, n, 0.0 if n < 4 else 0.15) for n in range(8)]
        for client in clients:
            client.start()
        for _ in range(3):
            seen = [len(client.sent) for client in clients]
            daemon.wait_until(
                lambda: all(len(c.sent) > n + 3 for c, n in zip(clients, seen, strict=True))  # noqa: B023
            )
            assert daemon.stop() == 0
            daemon = start()
        for client in clients:
            client.over.set()
        for client in clients:
            client.join()
        assert daemon.stop() == 0

    assert [client.faults for client in clients] == [[]] * 8
    sent = sorted(event for client in clients for event in client.sent)
    assert sorted(map(int, notes.read_text().split())) == sent


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (
            "tcp,closed",
            "descriptor 4, passed with LISTEN_FDS=2, is not an open socket: Bad file descriptor",
        ),
        (
            "file,udp",
            "descriptor 3, passed with LISTEN_FDS=2, is not an open socket: "
            "Socket operation on non-socket",
        ),
        (
            "tcp",
            "systemd must pass one TCP and one UDP socket (ListenStream= and ListenDatagram= "
            "in the .socket unit), not AF_INET SOCK_STREAM",
        ),
    ],
)
def test_wrong_sockets_are_status_3_and_one_line(activate: Spawn, names: str, line: str) -> None:
    daemon = activate(names)

    assert (daemon.wait(), daemon.err) == (3, f"app: cannot start: {line}\n")


def verify(unit: Path) -> None:
    """Check a unit with systemd."""
    need("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    complaints = [
        line
        for line in done.stderr.splitlines()
        # The unit has the line twice, for the reason given there.
        if "Failed to parse service type, ignoring: notify-reload" not in line
    ]

    assert (done.returncode, complaints) == (0, [])


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    (tmp_path / "mymod.py").write_text(APP)
    (tmp_path / "cfg.yaml").write_text(
        "master: {shutdown_timeout: 40, log_file: x.log, queue: /var/lib/dk app/q.db}\n"
        "home: !env HOME\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "daemonkit", "systemd", "mymod:app", "--config", "cfg.yaml",
         "--port", "80", "--set", 'url=a "b" $c %d \\e'],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    unit = tmp_path / "app.service"
    unit.write_text(done.stdout)
    verify(unit)

    assert "\nType=notify-reload\n" in done.stdout
    assert "\nTimeoutStopSec=45\n" in done.stdout
    assert "\nWatchdogSec=30\n" in done.stdout
    assert f"\nReadWritePaths={tmp_path}\n" in done.stdout
    assert '\nStateDirectory="dk app"\n' in done.stdout
    assert "\nEnvironmentFile=-/etc/app.env\n" in done.stdout
    assert "\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n" in done.stdout
    assert (
        f"ExecStart={sys.executable} -m daemonkit run mymod:app --config {tmp_path}/cfg.yaml "
        '--port 80 --set "url=a \\"b\\" $$c %%d \\\\e"\n'
    ) in done.stdout


def test_a_unit_that_systemd_does_not_accept_is_noticed(tmp_path: Path) -> None:
    unit = tmp_path / "bad.service"
    unit.write_text("[Service]\nExecStart=/nowhere/python\nTypo=x\n")

    with pytest.raises(AssertionError):
        verify(unit)
