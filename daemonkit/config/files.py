"""The files that a configuration consists of, and those among them that can be read only once."""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from pathlib import Path
from typing import BinaryIO

from ..exceptions import StartError

STARTED_BY = "from multiprocessing."
"""In the command of each process that multiprocessing starts anew, and of its fork server."""

FIFO_TIMEOUT = 10.0
"""Seconds to wait for what writes to a FIFO."""
SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


class Files:
    """Reads files, and keeps the content of those that can be read only once, such as pipes.

    Notes which environment variables the configuration names, and which files were read.
    """

    def __init__(self) -> None:
        self.variables: dict[str, None] = {}
        self.paths: dict[str, None] = {}
        self._kept: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @property
    def kept(self) -> list[str]:
        """Paths that can't be read again."""
        return list(self._kept)

    def read(self, path: str | os.PathLike[str]) -> bytes:
        """Return the content of a file, or the kept one; raises OSError and ValueError."""
        name = os.fspath(path)
        with self._lock:
            self.paths[name] = None
            if name in self._kept:
                return self._kept[name]
            # Its parent has read them; a descriptor's number may mean another file here.
            if is_started_anew() and _is_read_once(Path(name)):
                raise ValueError(
                    "it can be read only once, and not by a process that multiprocessing starts; "
                    "use a regular file"
                )
            with _open(name) as file:
                data = file.read()
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    self._kept[name] = data
            return data

    def variable(self, name: str) -> str | None:
        """Return an environment variable, None if it isn't set."""
        self.variables[name] = None
        return os.environ.get(name)


def _open(name: str) -> BinaryIO:
    """Open a file for reading; raises ValueError for a FIFO that nothing is written to."""
    if _names_descriptor(Path(name)) or not Path(name).is_fifo():
        return open(name, "rb")
    # Otherwise it blocks, and nobody knows why the daemon doesn't start.
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    written = select.poll()
    written.register(fd, select.POLLIN)
    if not written.poll(FIFO_TIMEOUT * 1000):
        os.close(fd)
        raise ValueError(f"it is a FIFO, and nothing is written to it within {FIFO_TIMEOUT:g} s")
    os.set_blocking(fd, True)
    return open(fd, "rb")


def refuse_special(path: str, setting: str, *kinds: int) -> None:
    """Raise StartError where a file can't be written like a regular one: opening a FIFO blocks.

    setting: that names it; kinds: S_IFCHR and the like, which may be used nevertheless. Descriptors
    such as /dev/stdout are open already. Folders are left to those who open them.
    """
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except (OSError, ValueError):
        return
    is_descriptor = os.path.realpath(path).startswith("/proc/")
    if kind in SPECIAL and kind not in kinds and not is_descriptor:
        raise StartError(f"{setting} must be a regular file, but {path} is {SPECIAL[kind]}")


def is_started_anew() -> bool:
    """Whether multiprocessing has started this process by spawn or forkserver."""
    return any(STARTED_BY in word for word in sys.orig_argv)


def behind_descriptor(path: Path) -> Path:
    """The regular file that a descriptor's name stands for; any other path as it is."""
    return path.resolve() if _names_descriptor(path) and path.is_file() else path


def _is_read_once(path: Path) -> bool:
    return _names_descriptor(path) or (path.exists() and not path.is_file())


def _names_descriptor(path: Path) -> bool:
    """Whether a path is another file in each process, as /dev/stdin is."""
    return path.parent in (Path("/dev"), Path("/dev/fd")) or path.parts[1:2] == ("proc",)
