"""Faults that a daemon must survive, provoked in a real process.

docs/reliability.md has an entry for each, with the measured figures.
"""

from __future__ import annotations

import random
import re
import signal
import socket
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from ..monitoring.alerts.juggler_server import FakeJuggler, juggler_server
from .process import LISTENING, Process, seconds_of
from .tools import missing

Run = Callable[..., Process]

HEAD = (
    "import concurrent.futures, os, resource, signal, sys, threading, time\n"
    "from daemonkit import Daemon, Slave\n"
    "app = Daemon('app')\n"
    "def say(text):\n"
    "    os.write(1, f'{text}\\n'.encode())\n"
)

FIVE_KINDS = (
    HEAD
    + """
def once(name, error):
    def work(slave):
        if name not in seen:
            seen.add(name)
            if error:
                raise error
        else:
            say(f'{name} is back')
            slave.shutdown.wait()
    app.add_slave(work, name=name, restart='always', backoff=(0.05, 0.05))

seen = set()
once('return', None)
for error in ValueError('v'), SystemExit(0), KeyboardInterrupt(), MemoryError():
    once(type(error).__name__, error)
"""
)


def test_five_ways_to_end_are_distinguished_and_none_ends_the_process(run_app: Run) -> None:
    daemon = run_app(FIVE_KINDS).wait_ready()
    for name in ("return", "ValueError", "SystemExit", "KeyboardInterrupt", "MemoryError"):
        daemon.wait_for(f"{name} is back\n")
    log = daemon.out

    for line in (
        "The slave return returned; restart 1 in 0.05 s",
        "The slave ValueError failed; restart 1 in 0.05 s",
        "The slave SystemExit raised SystemExit(0), which ends the slave and not the daemon; ",
        "The slave KeyboardInterrupt raised KeyboardInterrupt, which ends the slave and not the ",
        "The slave MemoryError ran out of memory; restart 1 in 0.05 s",
    ):
        assert line in log
    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


CRASH_LOOP = (
    HEAD
    + """
@app.slave(backoff=(0.02, 0.05))
def loop():
    raise ValueError('no')

@app.slave
def other(slave):
    slave.shutdown.wait()
    say('other stopped in order')
"""
)


def test_a_crash_loop_is_escalated_and_the_daemon_stops_in_order_with_1(run_app: Run) -> None:
    daemon = run_app(CRASH_LOOP)

    assert daemon.wait() == 1
    assert daemon.out.count("The slave loop failed; restart ") == 5
    assert (
        "The slave loop gave up: 5 restarts within 60 s were not enough; the daemon stops"
        in daemon.out
    )
    assert "Stopping: the slave loop gave up" in daemon.out
    assert "other stopped in order" in daemon.out
    assert daemon.err == ""


LONG_HANDLER = (
    HEAD
    + """
@app.on_event(timeout=0.2)
def handle(event):
    say('in')
    time.sleep(event['seconds'])
"""
)


def test_a_handler_that_exceeds_the_deadline_is_named_with_its_event_and_leads_to_4(
    run_app: Run,
) -> None:
    daemon = run_app(LONG_HANDLER, "--set", "master.shutdown_timeout=0.5").wait_ready()
    daemon.send_event({"seconds": 600})
    daemon.send_event({"seconds": 0})
    daemon.wait_for(r'The event handler is stalled: .* on the event \{"seconds": 600\}')
    ping = daemon.get("/ping")
    stalled = daemon.status()["events"]["stalled"]
    daemon.send_signal(signal.SIGTERM)
    took = seconds_of(daemon.wait)

    assert (ping.status_code, ping.text) == (503, "the event handler is stalled\n")
    assert [entry["thread"] for entry in stalled] == ["events"]
    assert daemon.wait() == 4
    assert took > 0.4
    assert "The thread events (event processor) did not stop in time" in daemon.out
    assert "2 events were left unhandled" in daemon.out


def test_a_handler_that_continues_is_healthy_again(run_app: Run) -> None:
    daemon = run_app(LONG_HANDLER).wait_ready()
    daemon.send_event({"seconds": 1})
    daemon.wait_for("The event handler is stalled")
    daemon.wait_for(r"The event handler recovered after \d+(\.\d+)? s\n")

    assert daemon.get("/ping").text == "OK\n"
    assert daemon.out.count("The event handler is stalled") == 1
    assert daemon.stop() == 0


STARTS_SLOWLY = (
    HEAD
    + """
time.sleep(0.05)

class Slow(Slave):
    def __init__(self):
        time.sleep(0.03)
    def run(self):
        self.shutdown.wait()

app.on_start(lambda: time.sleep(0.05))
for number in range(6):
    app.add_slave(Slow, name=f's{number}', after=[f's{number - 1}'] if number else ())
"""
)


ATTEMPTS = 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "part"),
    [*((signal.SIGTERM, part) for part in range(5)), *((signal.SIGINT, part) for part in range(2))],
)
def test_a_signal_at_any_moment_of_the_start_stops_it_cleanly(
    run_app: Run, number: signal.Signals, part: int
) -> None:
    whole = seconds_of(run_app(STARTS_SLOWLY).wait_ready)
    chance = random.Random(100 * number + part)
    ended = []
    for attempt in range(ATTEMPTS):
        daemon = run_app(STARTS_SLOWLY)
        # Before that, Python handles SIGINT, and an import may lose it as in any program.
        is_ours = number == signal.SIGINT or attempt % 2 == 0
        if is_ours:
            daemon.wait_until(lambda: handles(daemon, signal.SIGTERM))  # noqa: B023
        time.sleep(chance.uniform(0, whole / 2 if is_ours else whole))
        daemon.send_signal(number)
        ended.append((daemon.wait(), daemon.err))

    for status, err in ended:
        assert (status, err) in [
            (0, ""),
            (0, "daemonkit: stopped before the start\n"),
            # Before any of our code runs, the kernel ends it like any other program.
            (-signal.SIGTERM, ""),
        ]
    assert sum(status == 0 for status, _ in ended) >= ATTEMPTS / 2


def handles(daemon: Process, number: signal.Signals) -> bool:
    """Whether the process has a handler for a signal."""
    status = Path(f"/proc/{daemon.popen.pid}/status").read_text()
    caught = re.search(r"^SigCgt:\s+(\w+)$", status, re.MULTILINE)
    assert caught is not None
    return bool(int(caught[1], 16) & 1 << (number - 1))


IMPORTS_SLOWLY = (
    HEAD
    + """
try:
    say('importing')
    while not os.path.exists('go on'):
        time.sleep(0.01)
except BaseException as error:
    raise RuntimeError('the module hides it') from error
"""
)


def test_a_signal_during_an_import_that_hides_it_is_status_0(run_app: Run) -> None:
    daemon = run_app(IMPORTS_SLOWLY)
    daemon.wait_for("importing\n")

    assert daemon.stop() == 0
    assert daemon.err.endswith("daemonkit: stopped before the start\n")


IMPORTS_IN_EVAL = (
    HEAD
    + """
def wait():
    say('importing')
    while True:
        time.sleep(0.01)

eval('wait()')
"""
)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_an_eval_of_the_import_is_status_0(
    run_app: Run, number: signal.Signals
) -> None:
    daemon = run_app(IMPORTS_IN_EVAL)
    daemon.wait_for("importing\n")
    daemon.send_signal(number)

    assert daemon.wait() == 0
    assert daemon.err.endswith("daemonkit: stopped before the start\n")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_other_signals_during_the_import_do_no_harm(
    run_app: Run, tmp_path: Path, number: signal.Signals
) -> None:
    daemon = run_app(IMPORTS_SLOWLY)
    daemon.wait_for("importing\n")
    daemon.send_signal(number)
    (tmp_path / "0" / "go on").touch()
    daemon.wait_ready()

    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


def test_signals_that_the_parent_has_blocked_are_received(spawn: Run) -> None:
    blocking = (
        "import os, signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])\n"
        "os.execv(sys.executable, [sys.executable, 'prog.py'])\n"
    )
    program = HEAD + "app.configure({'master': {'port': 0}})\napp.start()\n"
    daemon = spawn("-c", blocking, prog__py=program).wait_ready()

    assert daemon.stop() == 0


def test_a_slave_that_hangs_in_init_is_shown_and_does_not_keep_the_daemon_from_stopping(
    run_app: Run,
) -> None:
    daemon = run_app(
        HEAD
        + "@app.slave(timeout=0.1)\nclass Hangs(Slave):\n"
        + "    def __init__(self):\n        time.sleep(600)\n    def run(self): ...\n",
        "--set",
        "master.shutdown_timeout=1",
    )
    daemon.port = int(daemon.wait_for(r"Listening on .*:(\d+)")[1])
    daemon.wait_for("The slave Hangs is stalled")
    ready = daemon.get("/ready")
    status = daemon.stop()

    assert (ready.status_code, ready.json()["message"]) == (
        503,
        "The daemon is starting: waiting for slaves (Hangs)",
    )
    assert status == 4
    assert "The thread Hangs (slaves) did not stop in time" in daemon.out


RELOADING = HEAD + "app.on_reload(lambda: say('reloaded'))\n"


def test_a_storm_of_sighups_is_one_or_two_reloads(run_app: Run, tmp_path: Path) -> None:
    daemon = run_app(RELOADING, "--config", "cfg.yaml", cfg__yaml="a: 0\n").wait_ready()
    config, written = tmp_path / "0" / "cfg.yaml", tmp_path / "0" / "written.yaml"
    begun = time.monotonic()
    for number in range(1, 101):
        # Otherwise it could be read between truncating and writing.
        written.write_text(f"a: {number}\n")
        written.replace(config)
        daemon.send_signal(signal.SIGHUP)
        time.sleep(max(0.0, begun + number / 110 - time.monotonic()))
    took = time.monotonic() - begun
    daemon.wait_until(lambda: daemon.status()["config"]["a"] == 100)
    daemon.stop()

    # More only if sending them took more than a second.
    assert 1 <= daemon.out.count("reloaded\n") <= 2 + int(took)


MAIN_IN_THE_QUEUE = (
    HEAD
    + """
@app.main
def main():
    say('in')
    while not app.shutdown.is_set():
        try:
            app.put_event(1)
        except Exception:
            pass
"""
)


@pytest.mark.parametrize("_number", range(5))
def test_sigterm_while_the_main_thread_is_inside_the_queue(run_app: Run, _number: int) -> None:
    daemon = run_app(MAIN_IN_THE_QUEUE, "--log-level", "ERROR")
    daemon.wait_for("in\n")

    assert daemon.stop() == 0


CLOCK = (
    HEAD
    + """
@app.slave(every=0.1, timeout=30)
def ticks(): ...

@app.slave(timeout=30)
def beats(slave):
    while not slave.sleep(0.2): ...

runs_of_flaky = []
@app.slave(backoff=(0.5, 0.5), max_restarts=None)
def flaky(slave):
    runs_of_flaky.append(1)
    say(f'flaky {len(runs_of_flaky)}')
    asked.wait()
    asked.clear()
    if not slave.shutdown.is_set():
        raise ValueError('asked to')

asked = threading.Event()
app.add_stop_hook(asked.set)
app.on_event(lambda event: asked.set())
app.main(lambda: (app.shutdown.wait(), asked.set()))
"""
)
# Under it, every wait for the interpreter's lock is a busy wait, hence the wide bounds: without a
# monotonic clock, the difference would be an hour.
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.slow
def test_the_wall_clock_may_jump_an_hour_either_way(spawn: Run, tmp_path: Path) -> None:
    if not FAKETIME:
        missing("libfaketime")
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    daemon = spawn(
        "-m", "daemonkit", "run", "mymod", "--port", "0",
        mymod__py=CLOCK,
        env={
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "COVERAGE_PROCESS_CONFIG": None,
        },
    ).wait_ready()  # fmt: skip
    for number, jump in enumerate((3600, -3600), 1):
        before = daemon.status()
        clock.write_text(f"{jump:+}\n")
        begun = time.monotonic()
        daemon.send_event("fail")
        daemon.wait_for(f"flaky {number + 1}\n")
        restarted = time.monotonic() - begun
        daemon.wait_until(
            lambda: daemon.status()["slaves"][0]["ticks"] > before["slaves"][0]["ticks"] + 10  # noqa: B023
        )
        after = daemon.status()
        seconds = after["uptime"] - before["uptime"]
        ticks, beats = (
            [status["slaves"][place][key] for status in (before, after)]
            for place, key in ((0, "ticks"), (2, "started"))
        )
        moved = (
            datetime.fromisoformat(beats[1]) - datetime.fromisoformat(beats[0])
        ).total_seconds()

        assert abs(moved) > 3000
        assert (moved > 0) is (jump > 0)
        assert 0.4 < restarted < 1000
        assert 0.5 < seconds < 1000
        assert ticks[1] - ticks[0] < 10 * seconds + 3
        assert daemon.get("/ping").text == "OK\n"

    assert daemon.stop() == 0
    assert "stalled" not in daemon.out
    assert daemon.err == ""


FORKS = (
    HEAD
    + """
@app.slave
def forks(slave):
    child = os.fork()
    if child == 0:
        if app.config['child'] == 'raises':
            raise ValueError('in the child')
        if app.config['child'] == 'exits':
            sys.exit(7)
        return
    say(f'child ended with {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}')
    slave.shutdown.wait()

@app.slave(every=60)
def forks_in_a_tick():
    child = os.fork()
    if child == 0:
        return
    say(f'tick: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}')

@app.on_event
def forks_in_the_handler(event):
    child = os.fork()
    if child == 0:
        return
    say(f'event {event}: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}')
"""
)


FORKS_ELSEWHERE = (
    HEAD
    + """
from flask import Response

def fork(where):
    child = os.fork()
    if child == 0:
        return where
    say(f'{where}: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}')
    return where

app.add_start_hook(lambda: fork('start hook'))
app.add_stop_hook(lambda: fork('stop hook'))
app.route('/fork', endpoint='fork')(lambda: fork('route'))

@app.route('/body')
def body():
    def parts():
        yield 'first,'
        yield fork('body')
        yield ',last'
        fork('end of the body')
    answer = Response(parts())
    answer.call_on_close(lambda: fork('closing'))
    return answer

app.main(lambda: fork('main'))
"""
)


def test_a_child_forked_in_a_hook_a_route_or_run_ends_there_too(run_app: Run) -> None:
    daemon = run_app(FORKS_ELSEWHERE).wait_ready()
    daemon.wait_for("main: 0\n")
    answers = [daemon.get("/fork").text for _ in range(3)]
    bodies = []
    for _ in range(3):
        with socket.create_connection((daemon.host, daemon.port), 10) as sock:
            sock.sendall(b"GET /body HTTP/1.0\r\n\r\n")
            # To the end: a child that continues would write, too, and keep the connection open.
            bodies.append(b"".join(iter(lambda: sock.recv(65536), b"")))

    assert daemon.stop() == 0
    assert answers == ["route"] * 3
    assert [body.partition(b"\r\n\r\n")[2] for body in bodies] == [b"first,body,last"] * 3
    for where, times in (
        *(("start hook", 1), ("main", 1), ("route", 3), ("stop hook", 1)),
        *(("body", 3), ("end of the body", 3), ("closing", 3)),
    ):
        assert len(re.findall(rf"^{where}: 0$", daemon.out, re.MULTILINE)) == times


@pytest.mark.parametrize(("child", "status"), [("returns", 0), ("raises", 1), ("exits", 7)])
def test_a_forked_child_ends_where_the_daemon_s_own_work_would_continue(
    run_app: Run, child: str, status: int
) -> None:
    daemon = run_app(FORKS, "--set", f"child={child}").wait_ready()
    daemon.wait_for(f"child ended with {status}\n")
    daemon.wait_for("tick: 0\n")
    for number in range(3):
        daemon.send_event(number)
        daemon.wait_for(f"event {number}: 0\n")

    assert daemon.get("/ping").text == "OK\n"
    assert daemon.status()["events"]["handled"] == 3
    assert daemon.stop() == 0
    assert daemon.out.count("INFO        Stopped\n") == 1
    assert ("ValueError: in the child" in daemon.err) is (child == "raises")


# A thread's stack needs address space; without it, starting one fails as at the limit of threads,
# which doesn't apply to root.
THREAD_LIMIT = (
    HEAD
    + """
STACK = 64 * 1024 * 1024

def used():
    return int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()

@app.on_event
def handle(event):
    if event == 'limit':
        resource.setrlimit(resource.RLIMIT_AS, (used() + STACK // 4, -1))
        threading.stack_size(STACK)
        asked.set()
    else:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

asked = threading.Event()
runs = []

@app.slave(backoff=(0.1, 0.1), max_restarts=None)
def unlucky(slave):
    runs.append(1)
    if len(runs) == 1:
        asked.wait()
        raise ValueError('asked to')
    say('lucky at last')
    slave.shutdown.wait()
"""
)


def test_at_the_limit_of_threads_a_slave_is_retried_until_it_starts(run_app: Run) -> None:
    daemon = run_app(THREAD_LIMIT).wait_ready()
    daemon.send_event("limit")
    daemon.wait_for("The slave unlucky failed.*\n(.*\n)+?.*RuntimeError: can't start new thread")
    # In between it is retried, and healthy for a moment.
    waiting = "the slave unlucky is backing off\n"
    daemon.wait_until(lambda: daemon.get("/ping").text == waiting)
    code = daemon.wait_until(lambda: (c := daemon.get("/ping").status_code) != 200 and c)
    daemon.send_event("no limit")
    daemon.wait_for("lucky at last\n")
    shown = daemon.status()["slaves"][0]

    assert code == 503
    assert shown["restarts"] >= 2
    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


def test_at_the_limit_of_threads_it_still_stops(run_app: Run) -> None:
    daemon = run_app(THREAD_LIMIT).wait_ready()
    daemon.send_event("limit")
    daemon.wait_for("RuntimeError: can't start new thread")

    assert daemon.stop() == 0


REFUSING = """\
import os, threading

refused, start = os.environ["REFUSED"], threading.Thread.start

def start_unless_refused(self):
    if self.name == refused:
        raise RuntimeError("can't start new thread")
    start(self)

threading.Thread.start = start_unless_refused

from daemonkit import Daemon

app = Daemon("app")
app.add_slave(lambda slave: slave.shutdown.wait(), name="worker")
app.add_event_handler(lambda event: None, threads=2)
app.add_start_hook(lambda: app.send_event_to_juggler("h", "s", "OK", "d"))
"""
NEEDED = (
    "signals", "deadline", "shutdown", "systemd", "timer", "event queue", "events-1", "events-2",
    "udp", "http", "http-1", "http-3", "http-ping",
)  # fmt: skip
"""Threads without which a daemon doesn't start."""
OPTIONAL = {
    "worker": "The slave worker failed; restart 1 in",
    "juggler": "Cannot send alerts; the next alert retries: RuntimeError: can't start new thread",
    "reload": "app: reload failed: RuntimeError: can't start new thread\n",
    "stacks": "app: stacks failed: RuntimeError: can't start new thread\n",
    "exit": "",
}
"""Threads that may be missing, and what is logged then."""


@pytest.fixture
def run_refusing(spawn: Run) -> Run:
    """Start a daemon with all its parts, one of which can't start its thread."""

    def start(name: str) -> Process:
        return spawn(
            *("-m", "daemonkit", "run", "mymod", "--port", "0", "--set", "master.queue=events.db"),
            *("--set", "master.juggler_url=http://127.0.0.1:1"),
            env={"REFUSED": name, "NOTIFY_SOCKET": "@daemonkit-nobody-listens"},
            mymod__py=REFUSING,
        )

    return start


@pytest.mark.parametrize("name", NEEDED)
def test_a_part_without_its_thread_fails_the_start_in_one_line(
    run_refusing: Run, name: str
) -> None:
    daemon = run_refusing(name)

    assert daemon.wait() == 3, daemon.out
    assert daemon.err == "app: cannot start: RuntimeError: can't start new thread\n"
    assert "cannot join thread" not in daemon.out
    if name != "signals":
        assert daemon.out.endswith("Stopped, exit status 3\n")


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_missing_optional_thread_does_not_keep_the_daemon_from_starting_and_stopping(
    run_refusing: Run, name: str
) -> None:
    daemon = run_refusing(name).wait_ready()
    daemon.send_signal(signal.SIGHUP)
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_until(lambda: OPTIONAL[name] in daemon.out + daemon.err, OPTIONAL[name])

    assert daemon.stop() == 0
    assert "1 alerts were not delivered to Juggler" in daemon.out
    assert "cannot join thread" not in daemon.out


SWALLOWS = (
    HEAD
    + """
import asyncio

async def fill(queue):
    while True:
        await queue.put(1)

@app.slave
async def consume():
    queue = asyncio.Queue(100)
    producer = asyncio.create_task(fill(queue))
    await asyncio.sleep(0.01)
    while True:
        await asyncio.wait_for(queue.get(), 1)

@app.slave
async def retry():
    say('retry runs')
    for _ in range(3):
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            say('once more')

@app.slave
async def clean():
    say('clean runs')
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.5)
        say('cleaned')
"""
)


def test_an_async_slave_that_swallows_its_cancellation_is_cancelled_again(run_app: Run) -> None:
    daemon = run_app(SWALLOWS).wait_ready()
    for name in ("retry", "clean"):
        daemon.wait_for(f"{name} runs")

    assert daemon.stop() == 0
    assert daemon.out.count("once more\n") == 3
    assert "cleaned\n" in daemon.out


def test_an_async_slave_that_cannot_be_cancelled_is_named_with_what_it_awaits(
    run_app: Run,
) -> None:
    text = """
import asyncio

@app.slave
async def stubborn():
    say('it runs')
    while True:
        try:
            await asyncio.sleep(600)  # for ever
        except BaseException:
            pass
"""
    daemon = run_app(HEAD + text, "--set", "master.shutdown_timeout=1").wait_ready()
    # A task that is cancelled before it has begun never runs.
    daemon.wait_for("it runs")

    assert daemon.stop() == 4
    assert "The thread stubborn (slaves) did not stop in time; its stack:" in daemon.out
    assert "await asyncio.sleep(600)  # for ever" in daemon.out


STUCK_CALLS = {
    "to_thread": "await asyncio.to_thread(hang)",
    "executor": "await asyncio.get_running_loop().run_in_executor(None, hang)",
    "forgotten": "asyncio.get_running_loop().run_in_executor(None, hang)",
    "shielded": "await asyncio.shield(asyncio.to_thread(hang))",
    "pool": "await asyncio.get_running_loop().run_in_executor(pool, hang)",
    "thread": "threading.Thread(target=hang, name='stuck', daemon=False).start()",
}


@pytest.mark.parametrize("call", STUCK_CALLS)
def test_a_function_that_an_async_slave_left_hanging_in_a_thread_is_named_with_its_stack(
    run_app: Run, call: str
) -> None:
    text = f"""
import asyncio
pool = concurrent.futures.ThreadPoolExecutor(1, 'stuck')

def hang():
    say('hangs')
    time.sleep(600)  # here

@app.slave
async def work(slave):
    {STUCK_CALLS[call]}
    await asyncio.sleep(600)
"""
    daemon = run_app(HEAD + text, "--set", "master.shutdown_timeout=1").wait_ready()
    daemon.wait_for("hangs\n")

    assert daemon.stop() == 4
    assert "time.sleep(600)  # here" in daemon.out
    own = "The thread asyncio_0 (slaves) did not stop in time; its stack:"
    named = {
        "pool": "because of the thread of a pool stuck_0:",
        "thread": "because of the non-daemon thread stuck:",
    }
    assert named.get(call, own) in daemon.out


STUCK = {
    "a thread": "threading.Thread(target=time.sleep, args=[600], name='stuck').start()",
    "a pool": "concurrent.futures.ThreadPoolExecutor(1, 'stuck').submit(time.sleep, 600)",
}


@pytest.mark.parametrize("what", STUCK)
@pytest.mark.parametrize("style", ["daemonkit run", "python prog.py"])
def test_a_non_daemon_thread_does_not_keep_the_process_past_the_deadline(
    run_app: Run, spawn: Run, what: str, style: str
) -> None:
    text = HEAD + f"@app.on_start\ndef begin():\n    {STUCK[what]}\n"
    if style == "daemonkit run":
        daemon = run_app(text, "--set", "master.shutdown_timeout=0.5")
    else:
        text += "app.configure({'master': {'shutdown_timeout': 0.5, 'port': 0}})\napp.start()\n"
        daemon = spawn("prog.py", prog__py=text)
    daemon.wait_ready()
    daemon.send_signal(signal.SIGTERM)
    took = seconds_of(daemon.wait)

    assert daemon.wait() == 4
    assert took > 0.4
    assert re.search(
        r"did not exit by the deadline because of the (non-daemon thread|thread of a pool) stuck",
        daemon.out,
    )
    assert "time.sleep" in daemon.out or "run" in daemon.out


def test_a_program_may_continue_past_the_deadline_after_start(spawn: Run) -> None:
    daemon = spawn(
        "prog.py",
        prog__py=HEAD
        + "app.configure({'master': {'shutdown_timeout': 2, 'port': 0}})\n"
        + "app.add_start_hook(app.stop)\napp.start()\ntime.sleep(2.2)\n"
        + "threading.Thread(target=lambda: (time.sleep(0.2), say('done'))).start()\n",
    )

    assert daemon.wait() == 0
    assert "done\n" in daemon.out


def test_a_daemon_that_failed_to_start_does_not_hang_in_a_thread_either(
    spawn: Run, run_app: Run
) -> None:
    first = run_app(HEAD).wait_ready()
    daemon = spawn(
        "prog.py",
        prog__py=HEAD
        + "threading.Thread(target=time.sleep, args=[600]).start()\n"
        + f"app.configure({{'master': {{'port': {first.port}, 'shutdown_timeout': 0.3}}}})\n"
        + "app.start()\n",
    )

    assert daemon.wait() == 4
    assert "Address already in use" in daemon.err


MAIN_HANGS = (
    HEAD
    + """
@app.on_event
def handle(event):
    time.sleep(600)

@app.main
def main():
    time.sleep(600)
"""
)


def test_events_left_are_counted_when_the_main_thread_hangs_too(run_app: Run) -> None:
    daemon = run_app(MAIN_HANGS, "--set", "master.shutdown_timeout=1").wait_ready()
    for number in range(5):
        daemon.send_event(number)

    assert daemon.stop() == 4
    assert "5 events were left unhandled" in daemon.out
    assert daemon.out.strip().endswith(
        "Stopped by the deadline of 1 s; still running: events, MainThread"
    )


def test_sigusr1_logs_every_stack_whatever_the_level_and_changes_nothing(run_app: Run) -> None:
    daemon = run_app(
        HEAD
        + "@app.slave\ndef poller(slave):\n    slave.shutdown.wait()\n"
        + "app.main(lambda: say('all threads run'))\n",
        "--log-level",
        "CRITICAL",
    )
    daemon.wait_for("all threads run\n")
    daemon.wait_until(lambda: "in poller\n      slave.shutdown.wait()" in stacks_of(daemon))

    daemon.wait_for(r" INFO +received SIGUSR1: \d+ threads\n")
    for name in ("MainThread", "poller", "http", "udp", "events", "timer"):
        daemon.wait_for(rf"\n  {name} \(thread id \d+\):\n")
    assert daemon.stop() == 0


def stacks_of(daemon: Process) -> str:
    """Ask for the stacks and wait for them, so that requests don't pile up."""
    logged = daemon.out.count("received SIGUSR1: ")
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_until(lambda: daemon.out.count("received SIGUSR1: ") > logged)
    return daemon.out


@pytest.mark.parametrize("chain", [False, True])
@pytest.mark.parametrize("style", ["daemonkit run", "python prog.py"])
def test_a_handler_of_sigusr1_that_faulthandler_has_set_is_left_alone(
    run_app: Run, spawn: Run, style: str, chain: bool
) -> None:
    # Of all threads, it can crash those that run, in the next request for instance.
    register = f"faulthandler.register(signal.SIGUSR1, all_threads=False, chain={chain})\n"
    text = f"{HEAD}import faulthandler\n{register}"
    if style == "daemonkit run":
        daemon = run_app(text).wait_ready()
    else:
        # With the default action, a chained signal would end the process.
        before = "signal.signal(signal.SIGUSR1, lambda *_: None)\n" if chain else ""
        text = text.replace("import faulthandler\n", "import faulthandler\n" + before)
        text += "app.configure({'master': {'port': 0}})\napp.start()\n"
        daemon = spawn("prog.py", prog__py=text).wait_ready()
    for count in (1, 2):

        def is_dumped(count: int = count) -> bool:
            # Again, as faulthandler steps aside for a moment while it chains a signal.
            daemon.send_signal(signal.SIGUSR1)
            return daemon.err.count("Stack (most recent call first)") >= count

        daemon.wait_until(is_dumped, "the stacks")

    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0
    assert "SIGUSR1" not in daemon.out


def test_a_user_s_own_handler_of_sigusr1_is_left_alone(run_app: Run) -> None:
    daemon = run_app(
        HEAD + "signal.signal(signal.SIGUSR1, lambda number, frame: say('mine'))\n"
    ).wait_ready()
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_for("mine\n")

    assert daemon.stop() == 0


DEPENDENT = (
    HEAD
    + """
class Worker(Slave):
    def __init__(self):
        say(f'{self.name} made')
    def run(self):
        self.shutdown.wait()
        if self.name == app.config.get('stubborn'):
            time.sleep(600)
        elif 'stubborn' in app.config:
            time.sleep(0.3)
        say(f'{self.name} over')

app.add_slave(Worker, name='c', after='b')
app.add_slave(Worker, name='b', after=['a'])
app.add_slave(Worker, name='a')
"""
)


def test_slaves_start_after_and_stop_before_those_they_need(run_app: Run) -> None:
    daemon = run_app(DEPENDENT).wait_ready()
    daemon.wait_for("c made\n")
    status = daemon.stop()
    said = re.findall(r"^(\w (?:made|over))$", daemon.out, re.MULTILINE)

    assert said == ["a made", "b made", "c made", "c over", "b over", "a over"]
    assert status == 0


def test_a_slave_that_does_not_stop_leaves_time_to_those_it_needs(run_app: Run) -> None:
    daemon = run_app(DEPENDENT, "--set", "stubborn=c", "--set", "master.shutdown_timeout=3")
    daemon.wait_ready()
    status = daemon.stop()

    assert re.findall(r"^(\w over)$", daemon.out, re.MULTILINE) == ["b over", "a over"]
    assert status == 4
    assert "still running: c" in daemon.out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            "after='pollr'",
            "the slave 's' starts after 'pollr', which does not exist; did you mean 'poller'?",
        ),
        (
            "after='poller'",
            "circular dependency between slaves: poller after s after poller; remove one after=",
        ),
    ],
)
def test_wrong_dependencies_are_status_2_and_one_line(
    run_app: Run, options: str, line: str
) -> None:
    daemon = run_app(
        HEAD
        + "app.add_slave(lambda: None, name='poller', after='s')\n"
        + f"app.add_slave(lambda: None, name='s', {options})\n"
    )

    assert (daemon.wait(), daemon.err) == (2, f"app: {line}\n")


DRAINING = (
    HEAD
    + """
@app.on_event(timeout=30)
def handle(event):
    say(f'handled {event}')
    if event == 'long':
        # Longer than drain_delay, so that it is waited for.
        time.sleep(2.6)

@app.slave
def worker(slave):
    slave.shutdown.wait()
    time.sleep(0.5)
"""
)


def test_while_stopping_readiness_goes_first_and_the_rest_answers_throughout(run_app: Run) -> None:
    daemon = run_app(
        DRAINING, "--set", "master.drain_delay=2", "--set", "master.shutdown_timeout=60"
    ).wait_ready()
    assert daemon.get("/ready").json() == {
        "message": "Ready",
        "result": True,
        "phase": "running",
        "waiting_for": [],
    }
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("Stopping: received SIGTERM")
    draining = daemon.get("/ready")
    daemon.send_event("while draining")
    daemon.send_event("long")
    daemon.send_datagram(b'"by datagram"')
    seen: list[tuple[str, str]] = []
    while daemon.popen.poll() is None:
        try:
            status = daemon.status()
            assert daemon.get("/ready").status_code == 503
        # Once everything else has stopped, HTTP closes.
        except OSError:
            break
        shown = (status["phase"], ", ".join(status["waiting_for"]))
        if shown not in seen:
            seen.append(shown)
        time.sleep(0.02)

    assert draining.status_code == 503
    # The main thread may not have returned from run() yet.
    assert draining.json()["message"].replace("run(), ", "") == (
        "The daemon is draining: waiting for senders (drain_delay, 2 s)"
    )
    assert daemon.wait() == 0
    for event in ("while draining", "long", "by datagram"):
        assert f"handled {event}\n" in daemon.out
    phases = [phase for phase, _ in seen]
    assert phases == sorted(phases, key=["draining", "stopping"].index)
    assert any(waits.startswith("event processor (events") for _, waits in seen)
    assert ("stopping", "slaves (worker)") in seen


MANY = (
    HEAD
    + """
count = app.config['count']
for number in range(count):
    app.add_slave(lambda slave: slave.shutdown.wait(), name=f's{number}', timeout=30)
"""
)


LARGE_BODY = (
    HEAD
    + """
import tempfile
tempfile.tempdir = '/nowhere'

@app.on_start
def limit():
    # More than the log will have.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

sizes = []
app.on_event(lambda event: sizes.append(len(event)))
app.add_status_field(lambda: sizes, name='sizes')
"""
)


def test_a_large_body_needs_neither_a_temporary_folder_nor_large_files(run_app: Run) -> None:
    daemon = run_app(LARGE_BODY, "--set", "master.max_event_size=10MiB").wait_ready()
    event = "x" * 3_000_000
    for data in (f'"{event}"'.encode(), iter([b'"', event.encode(), b'"'])):
        assert daemon.post("/events", data=data).status_code == 200
    daemon.wait_until(lambda: daemon.status()["sizes"] == [3_000_000] * 2)

    assert daemon.stop() == 0


INTERVAL = (
    HEAD
    + """
app.add_status_field(sys.getswitchinterval, name='interval')
"""
)


@pytest.mark.parametrize(
    ("text", "options", "interval"),
    [
        ("", (), 0.0001),
        ("", ("--set", "master.switch_interval=0.002"), 0.002),
        # The program has chosen it.
        ("sys.setswitchinterval(0.02)\n", (), 0.02),
        ("sys.setswitchinterval(0.02)\n", ("--set", "master.switch_interval=0.002"), 0.002),
    ],
)
def test_threads_that_compute_give_way_after_a_tenth_of_a_millisecond(
    run_app: Run, text: str, options: tuple[str, ...], interval: float
) -> None:
    daemon = run_app(INTERVAL + text, *options).wait_ready()

    assert daemon.status()["interval"] == pytest.approx(interval)
    assert daemon.stop() == 0


SPAN = 2


def voluntary_switches(pid: int) -> int:
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        match = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
        assert match is not None
        total += int(match[1])
    return total


@pytest.mark.slow
def test_two_hundred_slaves_start_and_stop_within_a_second_and_idle_quietly(run_app: Run) -> None:
    wakeups = {}
    for count in (0, 200):
        daemon = run_app(MANY, "--set", f"count={count}").wait_ready()
        second = daemon.soon(1.0)
        started = re.search(
            r"^\S+ (\S+) .* Starting$(?s:.*)^\S+ (\S+) .* Started$", daemon.out, re.M
        )
        assert started is not None
        began, ready = (
            time.strptime(stamp.split(",")[0], "%H:%M:%S") for stamp in started.groups()
        )
        fractions = [int(stamp.split(",")[1]) / 1000 for stamp in started.groups()]
        took = (time.mktime(ready) - time.mktime(began)) % 86_400 + fractions[1] - fractions[0]
        time.sleep(0.5)  # Let it come to rest before the measurement.
        before = voluntary_switches(daemon.popen.pid)
        time.sleep(SPAN)
        wakeups[count] = (voluntary_switches(daemon.popen.pid) - before) / SPAN
        daemon.send_signal(signal.SIGTERM)
        stopping = seconds_of(daemon.wait)

        assert daemon.wait() == 0
        assert took < second
        assert stopping < second
    assert wakeups[200] - wakeups[0] <= 5


CONNECTED = (
    HEAD
    + """
runs = []

class Conn(Slave):
    def __init__(self):
        runs.append(1)
        say(f'conn {len(runs)} made')
    def run(self):
        if len(runs) < 3:
            app.subscribed.wait(20)
            raise ConnectionError('reset by peer')
        self.shutdown.wait()
        say('conn over')

class Sub(Slave):
    def __init__(self):
        say(f'sub of {len(runs)} made')
    def run(self):
        say(f'sub of {len(runs)} runs')
        app.subscribed.set()
        self.shutdown.wait()
        app.subscribed.clear()
        say(f'sub over')

app.subscribed = threading.Event()
app.add_slave(Conn, name='conn', backoff=(0, 0))
app.add_slave(Sub, name='sub', after='conn', bound=True, max_restarts=0)
"""
)


def test_bound_slaves_follow_a_connection_that_breaks(run_app: Run) -> None:
    daemon = run_app(CONNECTED).wait_ready()
    daemon.wait_for("sub of 3 runs\n")
    status = daemon.stop()
    said = re.findall(r"^((?:conn|sub) .*(?:made|over))$", daemon.out, re.MULTILINE)

    assert said == [
        *("conn 1 made", "sub of 1 made", "sub over"),
        *("conn 2 made", "sub of 2 made", "sub over"),
        *("conn 3 made", "sub of 3 made", "sub over", "conn over"),
    ]
    assert status == 0
    assert daemon.out.count("Stopping sub: conn failed") == 2


def test_a_one_shot_job_ends_the_daemon_with_0(run_app: Run) -> None:
    daemon = run_app(
        HEAD
        + """
from daemonkit import Done

@app.slave(restart='always', ends_daemon=True, after='other')
def job():
    raise Done('400 rows imported')

@app.slave
def other(slave):
    slave.shutdown.wait()
    say('other over')
"""
    )

    assert daemon.wait() == 0
    assert "The slave job is done: 400 rows imported\n" in daemon.out
    assert "Stopping: the slave job is done\n" in daemon.out
    assert "other over\n" in daemon.out


def test_too_many_restarts_of_all_slaves_end_the_daemon_with_1(run_app: Run) -> None:
    daemon = run_app(
        HEAD
        + """
def fail():
    raise ValueError('no')

for number in range(3):
    app.add_slave(fail, name=f's{number}', backoff=(0, 0), critical=False, max_restarts=None)
""",
        "--set",
        "master.max_restarts=10",
        "--set",
        "master.within=1h",
    )

    assert daemon.wait() == 1
    assert (
        "10 restarts within 3600 s of all slaves (master.max_restarts) were not enough; the daemon stops"
        in daemon.out
    )
    assert len(re.findall("; restart [0-9]+ in 0 s", daemon.out)) == 10


def test_a_slow_slave_is_waited_for_before_those_that_it_needs(run_app: Run) -> None:
    daemon = run_app(
        HEAD
        + """
def slow(slave):
    slave.shutdown.wait()
    time.sleep(2)
    say('slow over')

def needed(slave):
    slave.shutdown.wait()
    say('a over')

app.add_slave(needed, name='a')
app.add_slave(slow, after='a')
""",
        "--set",
        "master.shutdown_timeout=3.5",
    ).wait_ready()
    status = daemon.stop()

    assert re.findall(r"^(\w+ over)$", daemon.out, re.MULTILINE) == ["slow over", "a over"]
    assert status == 0
    assert "in time" not in daemon.out


def test_forty_finished_jobs_leave_no_memory_behind(run_app: Run) -> None:
    daemon = run_app(
        HEAD
        + """
class Job(Slave):
    def __init__(self, data):
        self.data = data
    def run(self):
        assert len(self.data) == 4 * 2**20

def main():
    for number in range(40):
        app.run_slave(Job, b'x' * 4 * 2**20, name=f'job{number}')
        while app._assembly.supervisor.slaves()[-1].state != 'finished':
            time.sleep(0.001)
    say('all finished')
    app.shutdown.wait()

app.add_main(main)
"""
    ).wait_ready()
    before = resident(daemon.popen.pid)
    daemon.wait_for("all finished\n")
    after = resident(daemon.popen.pid)

    assert daemon.stop() == 0
    # It would be 160 MiB.
    assert after - before < 40 * 2**20


def resident(pid: int) -> int:
    """Memory of a process, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0])


SURROGATE = r"no \ud800"
"""A text that UTF-8 can't encode, as Python source and as it is shown."""
IN_A_TEXT = {
    "an event's error": "app.on_event(fail)",
    "an event's note": (
        "def noted(event):\n"
        "    error = ValueError()\n"
        "    error.__notes__ = [TEXT]\n"
        "    raise error\n"
        "app.on_event(noted)"
    ),
    "a slave's name and error": "app.add_slave(fail, name=TEXT, max_restarts=0, critical=False)",
    "a status field": "app.add_status_field(lambda: TEXT, name=TEXT)\napp.add_status_field(fail)",
    "a hook's error": "app.add_stop_hook(fail)\napp.on_reload(fail)",
    "a log line": (
        "app.add_start_hook(lambda: app.logger.error(TEXT, exc_info=ValueError(TEXT), "
        "extra={'a': TEXT}))"
    ),
    "a route's error": "app.route('/')(fail)",
}


@pytest.mark.parametrize(
    ("place", "log_format"), [*((place, "text") for place in IN_A_TEXT), ("a log line", "json")]
)
def test_a_lone_surrogate_anywhere_does_no_harm(
    run_app: Run, tmp_path: Path, place: str, log_format: str
) -> None:
    text = (
        "from daemonkit import Daemon\n"
        f"TEXT = '{SURROGATE}'\n"
        "app = Daemon(TEXT)\n"
        f"def fail(*_):\n    raise ValueError(TEXT)\n{IN_A_TEXT[place]}\n"
    )
    settings = [f"queue={tmp_path / 'events.db'}", f"log_format={log_format}"]
    options = [f"--set=master.{setting}" for setting in settings]
    daemon = run_app(text, *options, env={"NOTIFY_SOCKET": "@daemonkit-test"})
    daemon.port = int(daemon.wait_for(LISTENING.pattern)["port"])
    daemon.wait_until(lambda: daemon.get("/ready").status_code == 200)
    daemon.send_signal(signal.SIGHUP)
    daemon.send_event(SURROGATE.encode().decode("unicode_escape"))
    daemon.get("/")
    daemon.wait_until(lambda: len_waiting(daemon) == daemon.status()["events"]["in_work"] == 0)
    if "slave" in place:
        daemon.wait_until(lambda: daemon.get("/ping").status_code == 503)
        assert SURROGATE in daemon.get("/ping").text
    else:
        assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


def test_a_lone_surrogate_in_the_owner_s_name_is_shown(run_app: Run, tmp_path: Path) -> None:
    text = f"from daemonkit import Daemon\napp = Daemon('{SURROGATE}')\n"
    option = f"--set=master.queue={tmp_path / 'events.db'}"
    daemon = run_app(text, option)
    daemon.wait_for(" INFO +Started\n")
    second = run_app(text, option)

    assert second.wait() == 3
    assert f"is in use by process {daemon.popen.pid} ({SURROGATE}, since " in second.err


def len_waiting(daemon: Process) -> int:
    return int(daemon.status()["events_queue"])


@pytest.mark.parametrize(
    ("check", "code"),
    [
        ("raise PingError(TEXT, 418)", 418),
        ("return TEXT", 200),
        ("return TEXT, 418", 418),
        ("raise ValueError(TEXT)", 500),
    ],
)
def test_a_lone_surrogate_in_the_health_check_s_answer_leaves_its_code(
    run_app: Run, check: str, code: int
) -> None:
    daemon = run_app(
        HEAD
        + "from daemonkit import PingError\n"
        + f"TEXT = '{SURROGATE}'\n@app.on_ping\ndef ping():\n    {check}\n"
    ).wait_ready()
    answer = daemon.get("/ping")

    assert answer.status_code == code
    assert answer.text == ("The health check failed\n" if code == 500 else SURROGATE)
    assert daemon.stop() == 0


def test_a_lone_surrogate_in_a_start_error_is_shown(run_app: Run) -> None:
    text = HEAD + f"def fail():\n    raise ValueError('{SURROGATE}')\napp.add_start_hook(fail)\n"
    daemon = run_app(text.replace("'app'", f"'{SURROGATE}'"))

    assert daemon.wait() == 3
    assert daemon.err.startswith(f"{SURROGATE}: ")
    assert daemon.err.endswith(f"ValueError: {SURROGATE}\n")


def test_a_lone_surrogate_in_an_alert_is_sent(run_app: Run) -> None:
    with juggler_server(FakeJuggler()) as juggler:
        daemon = run_app(
            HEAD.replace("'app'", f"'{SURROGATE}'")
            + f"app.add_start_hook(lambda: app.send_event_to_juggler(*['{SURROGATE}'] * 2, 'OK', "
            f"'{SURROGATE}'))\n",
            f"--set=master.juggler_url={juggler.url}",
        ).wait_ready()
        daemon.wait_until(lambda: juggler.requests)

        assert daemon.stop() == 0
        (request,) = juggler.requests
        assert request["source"] == request["events"][0]["description"] == "no \ud800"
