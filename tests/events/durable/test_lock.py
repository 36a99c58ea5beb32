from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from daemonkit import StartError
from daemonkit.events.durable.lock import FileLock


def test_the_error_of_a_second_daemon_names_the_first(path: str) -> None:
    owner = FileLock(path, "billing")
    try:
        with pytest.raises(StartError) as caught:
            FileLock(path, "other")
    finally:
        owner.release()

    assert re.fullmatch(
        rf"the event queue {path} is in use by process {os.getpid()} \(billing, since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\); each daemon needs its own file \(master\.queue\)",
        str(caught.value),
    )
    FileLock(path, "other").release()
    assert os.path.getsize(path + "-lock") == 0


def test_a_forked_child_does_not_keep_the_lock(path: str) -> None:
    program = """
import os, sys
from daemonkit.events.durable.lock import FileLock
lock = FileLock(sys.argv[1], "parent")
if not os.fork():
    print("forked", flush=True)
    # Until the test has seen that the lock is free.
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    command = [sys.executable, "-c", program, path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        # By then it has released the lock that it inherited from the fork.
        assert parent.stdout.readline() == b"forked\n"
        assert parent.wait(10) == 0
        FileLock(path, "next").release()
