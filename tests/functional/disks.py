"""Small, full and slow disks, and disks that lose power, for tests that run as root on Linux."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .tools import need

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)."""
NOLOGFLUSH = 2
"""Discards what is only in memory, including the file system's journal."""


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def mount(source: str | Path, folder: Path, *options: str) -> None:
    """Mount, or skip the test where that isn't allowed."""
    need("mount")
    folder.mkdir(exist_ok=True)
    try:
        run("mount", *options, source, folder)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"mount isn't permitted: {error.stderr.strip()}")


@contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A disk in memory."""
    mount("tmpfs", folder, "-t", "tmpfs", "-o", options)
    try:
        yield folder
    finally:
        # A process that was just killed may still use it.
        run("umount", "-l", folder)


class Disk:
    """A file system in a file, whose power can be cut.

    Its file is on another such file system, which loses what was not flushed, like the cache of a
    disk.
    """

    def __init__(self, folder: Path) -> None:
        with tmpfs(folder / "probe", "size=1m"):
            # Who may not mount needs no tools for it.
            need("mkfs.ext4")
        self.folder, self._below = folder / "disk", folder / "below"
        self._image, self._image_below = self._below / "image", folder / "image"
        self._mounted: list[Path] = []
        make_image(self._image_below, 48)
        self._mount(self._image_below, self._below)
        make_image(self._image, 32)
        os.sync()
        self._mount(self._image, self.folder)

    def _mount(self, image: Path, folder: Path) -> None:
        mount(image, folder, "-o", "loop")
        self._mounted.append(folder)

    def cut_power(self) -> None:
        for folder in (self._below, self.folder):
            fd = os.open(folder, os.O_RDONLY)
            try:
                fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NOLOGFLUSH))
            finally:
                os.close(fd)

    def start_again(self) -> None:
        """Mount it again after a cut, once nothing uses it."""
        self.close()
        self._mount(self._image_below, self._below)
        self._mount(self._image, self.folder)

    def close(self) -> None:
        while self._mounted:
            run("umount", self._mounted.pop())


def make_image(path: Path, mebibytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(mebibytes * 2**20)
    run("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1", path)


def fill_up(folder: Path) -> Path:
    """Fill the disk; returns the file that does."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
    return path


QUOTA = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define EXCEEDED(result) \\
    if (result < 0 && errno == ENOSPC) \\
        errno = EDQUOT; \\
    return result

ssize_t write(int fd, const void *data, size_t size)
{
    ssize_t result = REAL(write)(fd, data, size);
    EXCEEDED(result);
}

#define PWRITE(name) \\
    ssize_t name(int fd, const void *data, size_t size, off_t offset) \\
    { \\
        ssize_t result = REAL(name)(fd, data, size, offset); \\
        EXCEEDED(result); \\
    }
#define FALLOCATE(name) \\
    int name(int fd, off_t offset, off_t size) \\
    { \\
        int error = REAL(name)(fd, offset, size); \\
        return error == ENOSPC ? EDQUOT : error; \\
    }
#define STATVFS(name, kind) \\
    int name(const char *path, struct kind *found) \\
    { \\
        int result = REAL(name)(path, found); \\
        found->f_bavail = found->f_bfree = found->f_blocks = 1 << 24; \\
        return result; \\
    }

int posix_fallocate(int fd, off_t offset, off_t size);
int posix_fallocate64(int fd, off_t offset, off_t size);

PWRITE(pwrite)
PWRITE(pwrite64)
FALLOCATE(posix_fallocate)
FALLOCATE(posix_fallocate64)
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)
"""


def quota(folder: Path) -> dict[str, str]:
    """The environment of a process to which a full disk looks like an exceeded quota on a large
    one."""
    return {"LD_PRELOAD": str(preloaded(folder, "quota", QUOTA))}


SLOW_SYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int slowly(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    usleep(1000 * atoi(getenv("SYNC_MILLISECONDS")));
    int result = real(fd);
    int log = open(getenv("SYNC_LOG"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    write(log, "s", 1);
    close(log);
    return result;
}

int fsync(int fd) { return slowly("fsync", fd); }
int fdatasync(int fd) { return slowly("fdatasync", fd); }
"""


class SlowSync:
    """The environment of a process with a slow disk.

    Each sync is one byte of a log, written after it.
    """

    def __init__(self, folder: Path, milliseconds: int) -> None:
        self._log = folder / "syncs"
        self.environ = {
            "LD_PRELOAD": str(preloaded(folder, "slow", SLOW_SYNC)),
            "SYNC_MILLISECONDS": str(milliseconds),
            "SYNC_LOG": str(self._log),
        }

    def count(self) -> int:
        """How many syncs there were."""
        return self._log.stat().st_size


def preloaded(folder: Path, name: str, text: str) -> Path:
    """A library compiled from C, for LD_PRELOAD."""
    need("gcc")
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    run("gcc", "-w", "-shared", "-fPIC", "-o", library, source, "-ldl")
    return library
