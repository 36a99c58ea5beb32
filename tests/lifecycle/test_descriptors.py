from __future__ import annotations

import os
import subprocess
import sys

import pytest

from daemonkit.lifecycle.descriptors import open_standard_descriptors


def test_a_process_that_has_them_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [os.fstat(fd) for fd in (0, 1, 2)], sys.stdin, sys.stdout, sys.stderr
    open_standard_descriptors()

    assert ([os.fstat(fd) for fd in (0, 1, 2)], sys.stdin, sys.stdout, sys.stderr) == before


def test_a_number_that_something_else_has_by_now_is_left_to_it() -> None:
    # A file has taken 2 after the start.
    code = (
        "import os, sys; f = os.open('/dev/zero', os.O_RDONLY); sys.stderr = None\n"
        "os.dup2(f, 2); os.close(1)\n"
        "from daemonkit.lifecycle.descriptors import open_standard_descriptors\n"
        "open_standard_descriptors()\n"
        "print('unseen', file=sys.stderr)\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in (1, 2)]\n"
        "assert links == ['/dev/null', '/dev/zero'], links\n"
        "assert os.get_inheritable(1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (0, "")
