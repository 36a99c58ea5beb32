"""The lifecycle of a real process, with real signals."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemonkit.lifecycle.signal_actions import SAME_SIGNAL
from daemonkit.testing import Client

from .process import LISTENING, Process

Run = Callable[..., Process]

HEAD = "from daemonkit import Daemon, Slave, StartError\nimport os, sys, threading, time\n"
QUIET = HEAD + "app = Daemon('app')\n"
SPEC_CLASS_STYLE = """\
import time

from daemonkit import Daemon, Slave


class MyWorker(Slave):
    def run(self):
        while not self.shutdown.wait(1): ...

class MyDaemon(Daemon):
    def run(self):
        self.run_slave(MyWorker)
        while not self.shutdown.is_set():
            self.logger.info("I'm running")
            time.sleep(0.2)
        self.logger.info("I'm done")

    def status(self):
        status = super().status()
        status["awesome_status"] = 42
        return status

MyDaemon(config="cfg.yaml").start()
"""
SPEC_DECORATORS = """\
from daemonkit import Daemon, PingError

app = Daemon("billing")
handled = []

def ok():
    return not handled

@app.slave                                   # a thread that does useful work
def poller(slave):
    while not slave.shutdown.wait(0.01):
        slave.logger.info("polling %s", app.config["url"])

@app.slave(every=60)                         # called every 60 s on its own thread
def sweep(): ...

@app.on_event                                # called once for each accepted event
def handle(event):
    handled.append(event)

@app.status_field                            # adds {"awesome_status": 42} to /status
def awesome_status(): return 42

@app.on_ping                                 # replaces the default health check
def healthy():
    if not ok(): raise PingError("database is away", 503)
    return "OK\\n"

@app.route("/hello")                         # the Flask blueprint, extended
def hello(): return {"hello": "world"}

if __name__ == "__main__":
    app.start()                              # blocks until shutdown
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order_with_status_0(run_app: Run, number: signal.Signals) -> None:
    daemon = run_app(
        QUIET
        + "app.add_slave(lambda slave: slave.shutdown.wait(), name='w')\n"
        + "app.on_stop(lambda: os.write(1, b'hook\\n'))\n"
    ).wait_ready()

    assert daemon.stop(number) == 0
    assert f"Stopping: received {number.name}" in daemon.out
    assert daemon.out.index("Finished") < daemon.out.index("hook") < daemon.out.index("Stopped")
    assert daemon.err == ""


def test_the_start_up_log_is_that_of_the_original(spawn: Run) -> None:
    program = SPEC_CLASS_STYLE.replace('config="cfg.yaml"', "").replace(
        "    def run(self):\n        self.run_slave",
        "    def run(self):\n        self.run_slave",
    )
    program = program.replace("MyDaemon().start()", "app = MyDaemon()\n")
    daemon = spawn("-m", "daemonkit", "run", "mymod", "--set", "master.port=0", mymod__py=program)
    daemon.wait_for("I'm running")
    daemon.stop()
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    lines = [
        "MainThread              MyDaemon                        WARNING     "
        "Config file is not specified",
        "MainThread              MyDaemon                        DEBUG       Starting",
        "MainThread              MyDaemon                        INFO        I'm running",
    ]
    found = [re.search(f"^{stamp}{re.escape(line)}$", daemon.out, re.MULTILINE) for line in lines]

    assert all(found)
    positions = [match.start() for match in found if match]
    assert positions == sorted(positions)
    assert positions[0] == 0


def test_the_class_style_program_works_as_printed(spawn: Run) -> None:
    config = (
        "master:\n    port: 0\n    host: '::'\n    hidden_opts: ['yt_token', 'other_tokens']\n"
        "yt_token: AAAA-123123\nother_tokens:\n    hello: AAAA-asdasdasd\n    password: oadsf\n"
    )
    daemon = spawn("prog.py", prog__py=SPEC_CLASS_STYLE, cfg__yaml=config).wait_ready()
    daemon.wait_for("I'm running")
    status = daemon.status()
    ended = daemon.stop()

    assert status["awesome_status"] == 42
    assert status["name"] == "MyDaemon"
    assert status["config"] == {"other_tokens": "*** HIDDEN ***", "yt_token": "*** HIDDEN ***"}
    assert [slave["name"] for slave in status["slaves"]] == ["MyWorker"]
    assert ended == 0
    assert "I'm done" in daemon.out


def test_the_decorator_program_works_as_printed(spawn: Run) -> None:
    config = "url: http://x\nmaster: {port: 0}\n"
    daemon = spawn(
        "-m", "daemonkit", "run", "mymod:app", "--config", "cfg.yaml",
        mymod__py=SPEC_DECORATORS, cfg__yaml=config,
    ).wait_ready()  # fmt: skip
    daemon.wait_for(r" poller +billing.poller +INFO +polling http://x\n")
    hello = daemon.get("/hello").json()
    healthy = daemon.get("/ping")
    daemon.send_event({"any": "event"})
    daemon.wait_until(lambda: daemon.status()["events"]["handled"])
    sick = daemon.get("/ping")
    status = daemon.status()

    assert hello == {"hello": "world"}
    assert (healthy.status_code, healthy.text) == (200, "OK\n")
    assert (sick.status_code, sick.text) == (503, "database is away")
    assert status["awesome_status"] == 42
    assert [slave["name"] for slave in status["slaves"]] == ["poller", "sweep"]
    assert daemon.stop() == 0


def test_stop_from_inside_is_status_0(run_app: Run) -> None:
    daemon = run_app(QUIET + "app.add_slave(app.stop, name='w')\n")

    assert daemon.wait() == 0
    assert "Stopping: stop() was called" in daemon.out


def test_a_handler_may_stop_the_daemon(run_app: Run) -> None:
    daemon = run_app(QUIET + "@app.on_event\ndef handle(event):\n    app.stop()\n").wait_ready()
    daemon.send_event(1)

    assert daemon.wait() == 0


def test_run_that_raises_is_status_1_with_its_traceback_in_the_log(run_app: Run) -> None:
    daemon = run_app(QUIET + "@app.main\ndef main():\n    raise ValueError('no')\n")

    assert daemon.wait() == 1
    assert "ValueError: no" in daemon.out
    assert "Stopped" in daemon.out


@pytest.mark.parametrize(
    ("options", "files", "line"),
    [
        (
            ["--config", "cfg.yaml"],
            {"cfg__yaml": "a: 1\nmaster:\n  prot: 1\n"},
            "daemonkit: cfg.yaml:3: unknown option 'prot' in master; did you mean 'port'?\n",
        ),
        (
            ["--config", "cfg.yaml"],
            {"cfg__yaml": "a: " + "[" * 500},
            "daemonkit: cfg.yaml:1: nested too deeply\n",
        ),
        (
            ["--port", "70000"],
            {},
            "daemonkit: --port: master.port must be an int 0..65535, not 70000 (int)\n",
        ),
    ],
)
def test_wrong_configuration_is_status_2_and_one_line_on_stderr(
    run_app: Run, options: list[str], files: dict[str, str], line: str
) -> None:
    daemon = run_app(QUIET, *options, **files)

    assert (daemon.wait(), daemon.err, daemon.out) == (2, line, "")


def test_the_class_style_reports_a_wrong_configuration_the_same_way(spawn: Run) -> None:
    daemon = spawn("prog.py", prog__py=SPEC_CLASS_STYLE, cfg__yaml="- a")

    assert daemon.wait() == 2
    line = "MyDaemon: cfg.yaml:1: must be a mapping of options to values, not list\n"
    assert (daemon.err, daemon.out) == (line, "")


def test_an_import_error_inside_the_module_is_status_2_with_its_traceback(run_app: Run) -> None:
    daemon = run_app("import nonexistent_thing\n")

    assert daemon.wait() == 2
    assert daemon.err.startswith("Traceback (most recent call last):\n")
    assert daemon.err.endswith(
        "ModuleNotFoundError: No module named 'nonexistent_thing'\n"
        "daemonkit: the module 'mymod' could not be imported: see above\n"
    )


def test_a_port_in_use_is_status_3_and_names_the_address(run_app: Run) -> None:
    first = run_app(QUIET).wait_ready()
    second = run_app(QUIET, "--port", str(first.port))
    status = second.wait()

    assert status == 3
    assert second.err == (
        f"app: cannot listen on TCP [::]:{first.port}: Address already in use; "
        "is it running already? Another port: --port or master.port\n"
    )
    assert first.get("/ping").text == "OK\n"


def test_a_start_hook_that_raises_is_status_3(run_app: Run) -> None:
    daemon = run_app(QUIET + "@app.on_start\ndef connect():\n    raise OSError('no database')\n")

    assert daemon.wait() == 3
    assert daemon.err == "app: the start hook connect failed: OSError: no database\n"
    assert "The start hook connect failed" in daemon.out


def test_a_log_file_that_cannot_be_opened_is_status_3(run_app: Run) -> None:
    daemon = run_app(QUIET, "--set", "master.log_file=/nowhere/app.log")

    assert daemon.wait() == 3
    assert daemon.err == (
        "app: cannot open the log file /nowhere/app.log: No such file or directory; "
        "see master.log_file\n"
    )


STUBBORN = {
    "a slave": "@app.slave\ndef stubborn():\n    time.sleep(600)\n",
    "run()": "@app.main\ndef main():\n    os.write(1, b'in\\n')\n    time.sleep(600)\n",
    "a stop hook": "@app.on_stop\ndef hang():\n    time.sleep(600)\n",
    "a start hook": "@app.on_start\ndef hang():\n    os.write(1, b'in\\n')\n    time.sleep(600)\n",
}


@pytest.mark.parametrize("what", STUBBORN)
def test_a_thread_that_does_not_stop_is_named_and_the_process_ends_at_the_deadline(
    run_app: Run, what: str
) -> None:
    daemon = run_app(QUIET + STUBBORN[what], "--set", "master.shutdown_timeout=0.3")
    if "write" in STUBBORN[what]:
        daemon.wait_for("^in$|\nin\n")
    else:
        daemon.wait_ready()

    assert daemon.stop() == 4
    assert re.search(r"The thread (stubborn|MainThread) \(.+\) did not stop in time", daemon.out)
    assert "time.sleep(600)" in daemon.out


def test_events_left_are_status_4(run_app: Run) -> None:
    daemon = run_app(
        QUIET + "@app.on_event\ndef handle(event):\n    time.sleep(600)\n",
        "--set",
        "master.shutdown_timeout=0.3",
    ).wait_ready()
    daemon.send_event(1)
    daemon.send_event(2)

    assert daemon.stop() == 4
    assert "2 events were left unhandled" in daemon.out


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_exits_at_once(run_app: Run, second: signal.Signals) -> None:
    options = ("--set", "master.shutdown_timeout=600")
    daemon = run_app(QUIET + STUBBORN["a slave"], *options).wait_ready()
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("Stopping: received SIGTERM")
    time.sleep(SAME_SIGNAL)
    status = daemon.stop(second)

    assert status == 128 + second
    assert daemon.err == f"app: {second.name} again: exiting at once\n"
    assert re.search(
        rf"CRITICAL +{second.name} again: exiting at once; 0 events are left unhandled\n$",
        daemon.out,
    )


def test_a_signal_in_a_start_hook_stops_it_with_status_0(run_app: Run) -> None:
    daemon = run_app(
        QUIET
        + "@app.on_start\ndef slow():\n    os.write(1, b'in\\n')\n    app.shutdown.wait(30)\n"
        + "@app.slave\ndef never():\n    print('never')\n"
    )
    daemon.wait_for("in\n")

    assert daemon.stop() == 0
    assert "never" not in daemon.out


def test_sighup_reloads_and_a_wrong_file_changes_nothing(run_app: Run, tmp_path: Path) -> None:
    daemon = run_app(
        QUIET + "app.on_reload(lambda: os.write(1, b'reloaded %d\\n' % app.config['a']))\n",
        "--config",
        "cfg.yaml",
        cfg__yaml="a: 1\n",
    ).wait_ready()
    config = tmp_path / "0" / "cfg.yaml"
    config.write_text("a: 2\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded 2")
    config.write_text("a: [\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("Not reloaded, the old configuration stays: cfg.yaml:2: not valid YAML")

    assert daemon.status()["config"] == {"a": 2}
    assert daemon.stop() == 0


@pytest.mark.parametrize("config", ["cfg.yaml", None, {"master": {"queue": "q.db"}}])
def test_a_module_that_changes_the_current_folder_changes_no_path(
    run_app: Run, tmp_path: Path, config: str | dict[str, Any] | None
) -> None:
    daemon = run_app(
        HEAD
        + f"app = Daemon('app', config={config!r})\n"
        + "os.mkdir('sub')\nos.chdir('sub')\n"
        + "seen = lambda: os.write(1, f'queue {app.master_config[\"queue\"]}\\n'.encode())\n"
        + "seen()\napp.on_start(seen)\n"
        + "@app.on_reload\ndef show():\n"
        + "    os.write(1, ' '.join(['reloaded', *app.config.values()]).encode())\n",
        *(["--config", "cfg.yaml"] if config is None else []),
        "--set", "given=!secret file:token", "--set", "master.log_file=app.log",
        token="first",
        cfg__yaml="read: !secret file:token\nmaster: {queue: q.db}\n",
    )  # fmt: skip
    folder = tmp_path / "0"
    log = folder / "app.log"
    daemon.wait_for(f"^(queue {folder}/q.db\n){{2}}")
    daemon.wait_until(lambda: "INFO        Started\n" in log.read_text(), "the start")
    (folder / "token").write_text("second")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("reloaded second" if isinstance(config, dict) else "reloaded second second")

    assert daemon.stop() == 0
    assert "only after a restart" not in log.read_text()
    assert (folder / "q.db").exists()
    assert list((folder / "sub").iterdir()) == []


def test_a_value_that_a_validator_refuses_never_takes_effect(run_app: Run, tmp_path: Path) -> None:
    daemon = run_app(
        QUIET
        + "@app.on_validate\ndef check(config, master):\n    if config['a'] < 0:\n"
        + "        raise ValueError('a is negative')\n"
        + "app.on_reload(lambda: os.write(1, b'hook saw %d\\n' % app.config['a']))\n",
        "--config",
        "cfg.yaml",
        cfg__yaml="a: 1\n",
    ).wait_ready()
    config = tmp_path / "0" / "cfg.yaml"
    config.write_text("a: -1\nmaster: {hidden_opts: [a]}\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for(
        "ERROR +Not reloaded, the old configuration stays: "
        "cfg.yaml: check[(][)] refused the configuration: ValueError: a is negative\n"
    )

    assert daemon.status()["config"] == {"a": 1}
    assert "hook saw" not in daemon.out
    config.write_text("a: 2\n")
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("hook saw 2\n")
    assert daemon.stop() == 0


def test_a_configuration_from_a_pipe_stays_in_force_over_a_reload(spawn: Run) -> None:
    command = (
        f"exec {sys.executable} -m daemonkit run mymod --port 0 --config <(printf 'a: 1') "
        "--set 'token=!secret file:'<(printf hush)"
    )
    daemon = spawn(
        "-c",
        "import os, sys; os.execlp('bash', 'bash', '-c', sys.argv[1])",
        command,
        mymod__py=QUIET
        + "other = Daemon('other')\nassert app.config == other.config\n"
        + "app.on_reload(lambda: os.write(1, b'reloaded %d\\n' % app.config['a']))\n",
    ).wait_ready()
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for(r"WARNING +/dev/fd/\d+ can't be read again; its first content stays in force\n")
    daemon.wait_for("reloaded 1\n")

    assert daemon.status()["config"] == {"a": 1, "token": "*** HIDDEN ***"}
    assert daemon.stop() == 0


def test_a_reload_without_a_configuration_file_says_so(run_app: Run) -> None:
    daemon = run_app(QUIET).wait_ready()
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for("WARNING +There is no configuration file to read again\n")
    daemon.wait_for("INFO +Reloaded\n")

    assert daemon.stop() == 0


def test_json_logs_are_one_object_a_line(run_app: Run) -> None:
    daemon = run_app(
        QUIET + "@app.slave(restart='never')\ndef worker():\n    raise ValueError('a\\nb')\n",
        "--set",
        "master.log_format=json",
    )
    daemon.wait_for('"message": "Started"')
    daemon.wait_for("The slave worker failed")
    daemon.stop()
    lines = [json.loads(line) for line in daemon.out.splitlines()]
    failure = next(line for line in lines if line["message"] == "The slave worker failed")

    assert (failure["thread"], failure["logger"]) == ("worker", "app.worker")
    assert failure["exception"].endswith("ValueError: a\nb")


def test_a_reader_of_stdout_that_exits_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "mymod.py").write_text(
        QUIET + "@app.slave(every=0.01)\ndef chat(slave):\n    slave.logger.info('x' * 1000)\n"
        "app.on_stop(lambda: sys.stdout.write('left in the buffer'))\n"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "daemonkit", "run", "mymod", "--port", "0"]
    with (
        (tmp_path / "err").open("wb") as err,
        subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=err, env=buffered
        ) as popen,
    ):
        assert popen.stdout is not None
        log = ""
        while "Started" not in log:
            log += popen.stdout.readline().decode()
        popen.stdout.close()
        listening = LISTENING.search(log)
        assert listening is not None
        client = Client("127.0.0.1", 60, int(listening["port"]))
        before = client.status()["slaves"][0]["ticks"]
        client.wait_until(lambda: client.status()["slaves"][0]["ticks"] > before + 5)
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(60) == 0
    assert (tmp_path / "err").read_bytes() == b""


def test_python_m_daemonkit_is_the_command(spawn: Run) -> None:
    daemon = spawn("-m", "daemonkit", "--version")

    assert daemon.wait() == 0
    assert daemon.out.startswith("daemonkit ")


BUSY_MAIN = (
    "@app.main\ndef main():\n    os.write(1, b'in\\n')\n    while not os.path.exists('over'):\n"
    "        time.sleep(0.01)\n"
)


def test_workers_are_stopped_at_once_while_run_is_busy(run_app: Run, tmp_path: Path) -> None:
    daemon = run_app(
        QUIET
        + BUSY_MAIN
        + "@app.slave\ndef worker(slave):\n    slave.shutdown.wait()\n    os.write(1, b'stopping\\n')\n",
        "--set",
        "master.shutdown_timeout=600",
    ).wait_ready()
    daemon.wait_for("in\n")
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("stopping\n")
    refused = daemon.post("/events", data=b"1")

    assert (refused.status_code, refused.json()["message"]) == (503, "The daemon is stopping")
    (tmp_path / "0" / "over").touch()
    assert daemon.wait() == 0


FORKING = (
    "import multiprocessing\n"
    "@app.slave\ndef forks(slave):\n"
    "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=[60])\n"
    "    child.start()\n"
    "    os.write(1, b'child %d\\n' % child.pid)\n"
    "    if 'end' in app.config:\n"
    "        child.terminate()\n"
    "    child.join()\n"
    "    os.write(1, b'exit code %d\\n' % child.exitcode)\n"
    "    slave.shutdown.wait()\n"
)


def test_a_forked_child_can_be_ended_without_ending_the_daemon(run_app: Run) -> None:
    daemon = run_app(QUIET + FORKING, "--set", "end=1").wait_ready()
    daemon.wait_for("exit code -15\n")

    assert daemon.get("/ping").text == "OK\n"
    assert daemon.stop() == 0


def test_a_signal_to_the_daemon_and_its_child_is_one_signal(run_app: Run) -> None:
    daemon = run_app(QUIET + FORKING).wait_ready()
    child = int(daemon.wait_for(r"child (\d+)\n")[1])
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("Stopping: received SIGTERM")
    os.kill(child, signal.SIGTERM)

    assert daemon.wait() == 0
    assert "exit code -15\n" in daemon.out


SLOW_ENDS = {
    "Stopping: received": "",
    "in the hook": "@app.on_stop\ndef hook():\n    say('in the hook')\n    time.sleep(0.2)\n",
    "at the exit": "import atexit\n"
    "@atexit.register\ndef bye():\n    say('at the exit')\n    time.sleep(0.2)\n",
}
SAYING = QUIET + "def say(text):\n    os.write(1, f'{text}\\n'.encode())\n"
STOP_PAIRS = [
    (a, b) for a in (signal.SIGTERM, signal.SIGINT) for b in (signal.SIGTERM, signal.SIGINT)
]


@pytest.mark.parametrize("moment", SLOW_ENDS)
@pytest.mark.parametrize(("first", "second"), STOP_PAIRS)
def test_two_stop_signals_within_half_a_second_are_one(
    run_app: Run, first: signal.Signals, second: signal.Signals, moment: str
) -> None:
    def send_both() -> tuple[int, str]:
        text = SAYING + SLOW_ENDS[moment] + "@app.on_stop\ndef last():\n    say('hooks run')\n"
        daemon = run_app(text).wait_ready()
        daemon.send_signal(first)
        daemon.wait_for(moment)
        if daemon.popen.poll() is None:
            daemon.send_signal(second)
        return daemon.wait(), daemon.err + ("" if "hooks run\n" in daemon.out else daemon.out)

    # On a busy machine, the second may arrive late.
    assert (0, "") in (send_both() for _ in range(5))


CLEANS_UP = (
    HEAD
    + """
try:
    os.write(1, b'importing\\n')
    time.sleep(30)
finally:
    os.write(1, b'cleaning\\n')
    time.sleep(float(os.environ.get('CLEAN', '0.1')))
    os.write(1, b'cleaned\\n')
"""
)


@pytest.mark.parametrize(("first", "second"), STOP_PAIRS)
def test_two_stop_signals_within_half_a_second_of_the_import_are_one(
    run_app: Run, first: signal.Signals, second: signal.Signals
) -> None:
    def send_both() -> tuple[int, bool]:
        daemon = run_app(CLEANS_UP)
        daemon.wait_for("importing")
        daemon.send_signal(first)
        daemon.wait_for("cleaning")
        daemon.send_signal(second)
        return daemon.wait(), "cleaned" in daemon.out

    assert (0, True) in (send_both() for _ in range(5))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_during_the_import_exits_at_once(
    spawn: Run, second: signal.Signals
) -> None:
    command = ("-m", "daemonkit", "run", "mymod", "--port", "0")
    daemon = spawn(*command, mymod__py=CLEANS_UP, env={"CLEAN": "600"})
    daemon.wait_for("importing")
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("cleaning")
    time.sleep(SAME_SIGNAL)

    assert daemon.stop(second) == 128 + second
    assert daemon.err == f"daemonkit: {second.name} again: exiting at once\n"


@pytest.mark.parametrize(("first", "second"), STOP_PAIRS)
def test_stop_signals_until_the_very_end_are_one(
    run_app: Run, first: signal.Signals, second: signal.Signals
) -> None:
    def send_many() -> int:
        daemon = run_app(QUIET).wait_ready()
        daemon.send_signal(first)
        until = time.monotonic() + SAME_SIGNAL * 0.9
        while daemon.popen.poll() is None and time.monotonic() < until:
            daemon.send_signal(second)
            time.sleep(0.001)
        return daemon.wait()

    # On a busy machine, the end takes longer.
    assert 0 in (send_many() for _ in range(5))


def test_a_signal_long_after_the_daemon_s_end_has_its_former_handler(spawn: Run) -> None:
    program = (
        HEAD
        + "import signal\n"
        + "def handler(*_):\n    os.write(1, b'former\\n')\n"
        + "signal.signal(signal.SIGTERM, handler)\n"
        + "Daemon('app', {'master': {'port': 0}}).start()\n"
        + "os.write(1, b'goes on\\n')\ntime.sleep(600)\n"
    )
    daemon = spawn("prog.py", prog__py=program).wait_ready()
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("goes on\n")
    time.sleep(SAME_SIGNAL)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for("former\n")

    assert daemon.stop(signal.SIGINT) != 0


CLOSED = [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)]
CLOSES = """
import os, sys
for fd in {closed}:
    os.close(fd)
os.execv(sys.executable, [sys.executable, *{command}])
"""
PRINTS = (
    HEAD
    + """
import subprocess
from daemonkit.system.log import write_stderr

app = Daemon('app')

def look():
    return [os.readlink(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)]

seen = [look()]

@app.on_start
def use():
    print('printed')
    print('printed', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.write('written')
    sys.stdin.read(0)
    write_stderr('fallen back\\n' * 10)
    subprocess.run(['true'], check=True)
    app.logger.info('used')

@app.status_field
def descriptors():
    return [*seen, look()]
"""
)


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize("style", ["daemonkit run", "python prog.py"])
def test_missing_standard_descriptors_are_dev_null(
    spawn: Run, tmp_path: Path, closed: tuple[int, ...], style: str
) -> None:
    path = tmp_path / "log"
    options = ["--port", "0", "--set", f"master.log_file={path}"]
    command = ["-m", "daemonkit", "run", "prog", *options]
    program = PRINTS
    if style == "python prog.py":
        command = ["prog.py"]
        program += f"app.configure({{'master': {{'port': 0, 'log_file': {str(path)!r}}}}})\n"
        program = program.replace("seen = [look()]", "seen = []") + "app.start()\n"
    daemon = spawn("-c", CLOSES.format(closed=closed, command=command), prog__py=program)

    def text() -> str:
        return path.read_text() if path.exists() else ""

    daemon.wait_until(lambda: "INFO        Started\n" in text() or daemon.popen.poll(), "a start")
    match = LISTENING.search(text())
    assert match is not None, daemon.out + daemon.err
    daemon.port = int(match["port"])
    shown = daemon.status()["descriptors"]

    assert {links[fd] for links in shown for fd in closed} == {"/dev/null"}
    assert all("/dev/null" not in links[fd] for links in shown for fd in {1, 2} - {*closed})
    assert daemon.stop() == 0
    assert "used\n" in text()
    assert "SIGUSR1" not in text()


def test_an_event_loop_s_own_signals_in_run_leave_ours_working(run_app: Run) -> None:
    daemon = run_app(
        QUIET
        + "import asyncio, signal\n"
        + "async def work():\n"
        + "    loop = asyncio.get_running_loop()\n"
        + "    loop.add_signal_handler(signal.SIGUSR1, lambda: os.write(1, b'usr1\\n'))\n"
        + "    os.write(1, b'in\\n')\n"
        + "    while not app.shutdown.is_set():\n"
        + "        await asyncio.sleep(0.01)\n"
        + "app.add_main(lambda: asyncio.run(work()))\n"
    )
    daemon.wait_for("in\n")
    daemon.send_signal(signal.SIGUSR1)
    daemon.wait_for("usr1\n")

    assert daemon.stop() == 0


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_does_not_keep_the_daemon_from_exiting(tmp_path: Path, closed: str) -> None:
    (tmp_path / "mymod.py").write_text(
        QUIET
        + "@app.slave\ndef stubborn():\n    open('started', 'w').close()\n    time.sleep(600)\n"
    )
    command = f"exec {sys.executable} -m daemonkit run mymod --port 0 {closed}"
    client = Client("127.0.0.1", 60)
    for number in (1, 2):
        with subprocess.Popen(
            f"{command} --set master.shutdown_timeout={0.3 if number == 1 else 600}",
            shell=True,
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as popen:
            client.wait_until((tmp_path / "started").exists)
            (tmp_path / "started").unlink()
            popen.send_signal(signal.SIGTERM)
            status = None
            while number == 2 and status is None:
                popen.send_signal(signal.SIGINT)
                status = popen.poll()
                time.sleep(0.01)
            assert popen.wait(60) in ((4,) if number == 1 else (128 + 2,))


def test_a_full_pipe_that_nobody_reads_does_not_keep_the_daemon_from_exiting(
    tmp_path: Path,
) -> None:
    (tmp_path / "mymod.py").write_text(
        QUIET
        + "@app.slave\ndef chat(slave):\n    while True:\n        slave.logger.info('x' * 1000)\n"
        "        with open('n', 'a') as file:\n            file.write('.')\n"
    )
    command = (
        "-m",
        "daemonkit",
        "run",
        "mymod",
        "--port",
        "0",
        "--set",
        "master.shutdown_timeout=0.3",
    )
    with subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as popen:
        assert popen.stdout is not None
        size = fcntl.fcntl(popen.stdout, fcntl.F_SETPIPE_SZ, 4096)
        lines, written = size // 1100, tmp_path / "n"
        Client("127.0.0.1", 60).wait_until(
            lambda: written.exists() and written.stat().st_size >= lines - 1
        )
        popen.send_signal(signal.SIGTERM)
        assert popen.wait(60) == 4


def test_the_configuration_is_there_while_the_module_is_imported(run_app: Run) -> None:
    daemon = run_app(
        QUIET + "app.add_slave(lambda: None, name='s', every=app.config['every'])\n",
        "--config", "cfg.yaml", "--set", "every=0.01",
        cfg__yaml="every: 60\n",
    ).wait_ready()  # fmt: skip

    daemon.wait_until(lambda: daemon.status()["slaves"][0]["ticks"] > 3)
    assert daemon.stop() == 0


def test_start_while_the_module_is_imported_is_refused(run_app: Run) -> None:
    daemon = run_app(QUIET + "app.start()\n")

    assert daemon.wait() == 2
    assert "put it under if __name__ == '__main__':" in daemon.err
    assert daemon.out == ""


def test_a_start_error_is_also_in_the_log_file(run_app: Run, tmp_path: Path) -> None:
    daemon = run_app(
        QUIET + "@app.on_start\ndef connect():\n    raise OSError('away')\n",
        "--set",
        "master.log_file=app.log",
    )

    assert daemon.wait() == 3
    lines = (tmp_path / "0" / "app.log").read_text().splitlines()
    assert [line.split("app ")[-1].split()[0] for line in lines[-3:]] == [
        "CRITICAL",
        "INFO",
        "INFO",
    ]
    assert lines[-3].endswith("CRITICAL    the start hook connect failed: OSError: away")
    assert lines[-2].endswith("Stopping: the start failed")
    assert lines[-1].endswith("Stopped, exit status 3")
