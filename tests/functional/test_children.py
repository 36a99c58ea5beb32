"""Processes that multiprocessing starts anew have the command line's configuration."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .process import Process

MODULE = """
import multiprocessing, os
from concurrent.futures import ProcessPoolExecutor
from daemonkit import Daemon

app = Daemon('app', {'x': 'constructor', 'y': 'constructor'})
os.chdir('/')
method = os.environ['METHOD']
try:
    at_import = app.config['x'], app.config['y'], app.master_config['queue']
except Exception as error:
    at_import = str(error)

def read(_=None):
    return at_import, Daemon('other', {'x': 'own'}).config

def put(queue, function):
    queue.put(function())

def in_process(method=method, function=read):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=put, args=[queue, function])
    process.start()
    result = queue.get(timeout=50)
    process.join()
    return result

def below(_=None):
    return in_process('spawn')

@app.on_start
def start():
    context = multiprocessing.get_context(method)
    results = [read(), in_process(), in_process('fork', below)]
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        results += [*pool.map(read, [1]), *pool.map(below, [1])]
    with context.Pool(1) as pool:
        results += pool.map(read, [1])
    for result in results:
        app.logger.info('RESULT %r', result)
"""
CONFIG = "master: {queue: q.db}\nx: file\ny: file\n"
SCRIPT = [str(Path(sys.executable).with_name("daemonkit")), "run", "mymod.py", "--port", "0"]


def results(process: Process) -> list[str]:
    """What the daemon, and each of its children, read."""
    process.wait_ready()
    found = re.findall(r" RESULT (.*)", process.out)
    assert process.stop() == 0
    assert len(found) == 6, process.out + process.err
    return found


@pytest.mark.parametrize(("method", "by_script"), [("spawn", True), ("forkserver", False)])
def test_children_have_the_command_line_s_configuration_at_import(
    spawn: Callable[..., Process],
    run_app: Callable[..., Process],
    tmp_path: Path,
    method: str,
    by_script: bool,
) -> None:
    arguments, env = ["--config", "cfg.yaml", "--set", "y=[s]"], {"METHOD": method}
    if by_script:
        process = spawn(*SCRIPT, *arguments, env=env, mymod__py=MODULE, cfg__yaml=CONFIG)
    else:
        process = run_app(MODULE, *arguments, env=env, cfg__yaml=CONFIG)
    read = ("file", ["s"], str(tmp_path / "0" / "q.db"))

    # A daemon that a child makes later is configured by itself, as in the daemon's process.
    assert results(process) == [repr((read, {"x": "own"}))] * 6


def test_children_of_a_daemon_configured_by_a_pipe_get_a_clear_error(
    run_app: Callable[..., Process],
) -> None:
    reader, writer = os.pipe()
    os.write(writer, CONFIG.encode())
    os.close(writer)
    path = f"/dev/fd/{reader}"
    env, options = {"METHOD": "spawn"}, ["--config", path, "--set=master.queue=null"]
    try:
        first, *others = results(run_app(MODULE, *options, env=env, pass_fds=[reader]))
    finally:
        os.close(reader)
    error = (
        f"{path}: cannot read the configuration: it can be read only once, and not by a process "
        "that multiprocessing starts; use a regular file"
    )

    assert first == repr((("file", "file", None), {"x": "own"}))
    assert others == [repr((error, {"x": "own"}))] * 5


OTHER = """
from lib import app

if __name__ == '__main__':
    app.configure({'master': {'port': 0}})
    app.start()
"""


@pytest.mark.parametrize(
    ("method", "below_a_daemon"), [("spawn", False), ("spawn", True), ("forkserver", True)]
)
def test_children_of_another_program_have_its_own_configuration(
    spawn: Callable[..., Process], method: str, below_a_daemon: bool
) -> None:
    start = (
        "import subprocess, sys\nfrom daemonkit import Daemon\napp = Daemon('above')\n"
        "program = subprocess.Popen([sys.executable, 'other.py'])\n"
        "@app.on_stop\ndef stop():\n    program.terminate()\n    program.wait()\n"
    )
    command = [*SCRIPT, "--config", "cfg.yaml"] if below_a_daemon else ["other.py"]
    files = {"mymod__py": start, "other__py": OTHER, "lib__py": MODULE, "cfg__yaml": CONFIG}
    process = spawn(*command, env={"METHOD": method}, **files)
    process.wait_for(r" app +INFO +Started\n")
    own = repr((("constructor", "constructor", None), {"x": "own"}))

    assert re.findall(r" RESULT (.*)", process.out) == [own] * 6
    assert process.stop() == 0
