"""The command line's configuration in processes that multiprocessing starts anew.

By spawn or forkserver, a child imports the user's module again, but not by `daemonkit run`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from types import FrameType

from ..exceptions import ConfigError
from .files import STARTED_BY, behind_descriptor, is_started_anew
from .loading import Given, Override

VARIABLE = "DAEMONKIT_COMMAND_LINE"
"""Environment variable: the id of the daemon's process, a space, and what was given, as JSON."""
LONGEST = 100_000
"""With a longer variable, no program could be started (execve(2), MAX_ARG_STRLEN)."""


def hand_down(given: Given, environ: MutableMapping[str, str]) -> None:
    """Let children of this process have what its command line gave.

    given: with a file as its source, if any.
    """
    source = None
    if isinstance(given.source, str | os.PathLike):
        source = str(behind_descriptor(given.folder / given.source))
    text = json.dumps([source, given.overrides, str(given.folder)])
    environ[VARIABLE] = f"{os.getpid()} {text if len(text) <= LONGEST else ''}"


def handed_down(environ: Mapping[str, str]) -> Given | None:
    """What the command line of the daemon gave, in a child's import of the user's module.

    Raises ConfigError where that was too long to hand down.
    """
    pid, _, text = environ.get(VARIABLE, "").partition(" ")
    if not (pid.isdecimal() and _is_child_of(int(pid)) and _is_importing(sys._getframe())):
        return None
    if not text:
        raise ConfigError(
            f"the command line has more than {LONGEST} characters, which is too long for the "
            "processes that multiprocessing starts; move its values to a file"
        )
    source, overrides, folder = json.loads(text)
    return Given(
        source,
        tuple(Override(*override) for override in overrides),
        folder=Path(folder),
    )


def _is_child_of(daemon: int) -> bool:
    """Whether multiprocessing has started this process anew for `daemon`, or for a child of it.

    Another program that the daemon has started is not one, nor are that program's children.
    """
    if not is_started_anew():
        return False
    try:
        own = _command(daemon)
        # A forked child has the command of its parent.
        return all(
            STARTED_BY.encode() in command or command == own
            for command in map(_command, _up_to(daemon))
        )
    except OSError:
        return False


def _up_to(daemon: int) -> Iterator[int]:
    """This process and those above it, below `daemon`; raises OSError when that isn't one."""
    pid = os.getpid()
    while pid != daemon:
        yield pid
        # The second field may contain spaces and parentheses (proc_pid_stat(5)).
        pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def _is_importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: what its functions make later is configured by itself, as
    in the daemon's process."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False
