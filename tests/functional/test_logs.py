"""What a process writes with `log_format: json`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from typing import Any

from daemonkit.config.redaction import HIDDEN

from .process import Process

MODULE = """
import logging, os, sys, threading, traceback, warnings
from daemonkit import Daemon

logging.basicConfig()
app = Daemon("app")

class Wrong:
    def __del__(self):
        raise ValueError("in a destructor: hush-hush")

class Echo(logging.Handler):
    # A handler that prints must not have its own output logged again.
    def emit(self, record):
        print("echo", record.getMessage())

def fail():
    raise ValueError("in a thread: hush-hush")

@app.on_start
def write():
    print("printed hush-hush", end="")
    print(" and more")
    print("for errors: hush-hush", file=sys.stderr)
    sys.stdout.buffer.write(b"bytes\\n")
    warnings.warn("a warning: hush-hush")
    thread = threading.Thread(target=fail, name="failing")
    thread.start()
    thread.join()
    Wrong()
    try:
        1 / 0
    except ZeroDivisionError:
        traceback.print_exc()
    logging.getLogger().addHandler(Echo())
    logging.getLogger("any").warning("logged")

    child = os.fork()
    if not child:
        raise KeyError("in a forked child: hush-hush")
    os.waitpid(child, 0)
"""


def objects(text: str) -> list[dict[str, Any]]:
    """All lines, each of which must be an object; what was hidden is ***."""
    return [json.loads(line.replace(HIDDEN, "***")) for line in text.splitlines()]


def texts(text: str) -> list[str]:
    return [fields["message"] for fields in objects(text)]


def test_everything_is_json_and_redacted(run_app: Callable[..., Process]) -> None:
    config = "key: !secret hush-hush\nmaster: {log_format: json}\n"
    daemon = run_app(MODULE, "--config", "cfg.yaml", cfg__yaml=config)
    daemon.wait_for('"Started"')
    assert daemon.stop() == 0

    assert "hush" not in daemon.out + daemon.err
    out, err = texts(daemon.out), texts(daemon.err)
    for line in ("printed *** and more", "bytes", "logged", "echo logged", "echo Started"):
        assert out.count(line) == 1, line
    (warning,) = [fields for fields in objects(daemon.out) if fields["logger"] == "py.warnings"]
    assert "UserWarning: a warning: ***" in warning["message"]
    # basicConfig's handler writes what is logged to stderr, too.
    for line in ("for errors: ***", "WARNING:any:logged", "ZeroDivisionError: division by zero"):
        assert err.count(line) == 1, line
    raised = [
        (fields["message"].partition(":")[0], fields["exception"].splitlines()[-1])
        for fields in objects(daemon.err)
        if "exception" in fields
    ]
    assert raised == [
        ("Exception in thread failing", "ValueError: in a thread: ***"),
        ("Exception ignored in", "ValueError: in a destructor: ***"),
        ("Uncaught exception", "KeyError: 'in a forked child: ***'"),
    ]


def test_a_second_signal_is_reported_as_json(run_app: Callable[..., Process]) -> None:
    module = "from daemonkit import Daemon\napp = Daemon('app')\napp.on_stop(lambda: print(app.shutdown.__class__().wait()))"
    daemon = run_app(module, "--set", "master.log_format=json")
    daemon.wait_for('"Started"')
    daemon.send_signal(signal.SIGTERM)
    daemon.wait_for('"Stopping')
    daemon.wait_until(lambda: daemon.popen.poll() is not None or daemon.send_signal(signal.SIGTERM))

    assert texts(daemon.err) == ["app: SIGTERM again: exiting at once"]
    assert objects(daemon.out)


def test_a_start_that_fails_is_reported_as_json(run_app: Callable[..., Process]) -> None:
    module = "from daemonkit import Daemon\napp = Daemon('app')"
    options = ("--set", "master.log_format=json", "--set", "master.log_file=/nowhere/app.log")
    daemon = run_app(module, *options)

    assert daemon.wait() == 3
    (fields,) = objects(daemon.err)
    assert (fields["logger"], fields["level"]) == ("app", "CRITICAL")
    assert fields["message"].startswith("cannot open the log file /nowhere/app.log: ")


def test_what_ends_the_main_thread_is_reported_as_json(run_app: Callable[..., Process]) -> None:
    module = """
from daemonkit import Daemon

class App(Daemon):
    @property
    def run(self):
        raise ValueError("no")

app = App("app")
"""
    daemon = run_app(module, "--set", "master.log_format=json")

    assert daemon.wait() == 1
    *_, last = objects(daemon.err)
    assert (last["message"], last["logger"]) == ("Uncaught exception", "stderr")
    assert last["exception"].endswith("ValueError: no")
