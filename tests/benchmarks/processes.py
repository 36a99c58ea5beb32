"""Processes: on which cores each runs, how it is started and ended, and its figures in proc(5)."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 20.0
"""Seconds to wait for anything."""
PINNED, UNPINNED = PINNINGS = ("pinned", "unpinned")


class CheckFailed(Exception):
    """A server did not do its job, or the measurement is invalid."""


@dataclass(frozen=True)
class Cores:
    """The cores that servers run on, and those that load them."""

    server: Set[int]
    load: Set[int]

    @classmethod
    def choose(cls) -> dict[str, Cores] | None:
        """By pinning: the first and the last core that this process may use, or all of them for
        both; None if it has only one."""
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2:
            return None
        return {
            PINNED: cls({allowed[0]}, {allowed[-1]}),
            UNPINNED: cls(set(allowed), set(allowed)),
        }


def spawn(
    arguments: Sequence[str],
    cores: Set[int],
    variables: Mapping[str, str] | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start `python ARGUMENTS...` on these cores, in a process group of its own.

    variables: added to its environment.
    """
    # Neither coverage nor the compilation to bytecode is to be measured.
    unwanted = ("COVERAGE_", "COV_CORE_", "PYTHONDONTWRITEBYTECODE")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environ, **(variables or {})},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
        **options,
    )


def output_of(arguments: Sequence[str], cores: Set[int]) -> bytes:
    """The output of `python ARGUMENTS...`, run on these cores to its end."""
    process = spawn(arguments, cores, stdout=subprocess.PIPE)
    try:
        output = process.communicate(timeout=TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"python {' '.join(arguments)}: not done in {TIMEOUT:g} s") from None
    finally:
        end_group(process)
    if process.returncode:
        raise CheckFailed(f"python {' '.join(arguments)}: exit status {process.returncode}")
    return output


def ends(process: subprocess.Popen[bytes]) -> bool:
    """Wait for a process to end; returns False if it doesn't in time."""
    # Popen.wait with a timeout checks only every 50 ms.
    ended = os.pidfd_open(process.pid)
    try:
        return bool(select.select([ended], [], [], TIMEOUT)[0])
    finally:
        os.close(ended)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class CoreTimes(NamedTuple):
    """Seconds since the machine was started in which cores were busy, or idle while a process
    waited for the disk."""

    busy: float
    disk: float


def core_times(cores: Set[int]) -> CoreTimes:
    """The sum for these cores, from proc(5)."""
    names = {f"cpu{core}" for core in cores}
    busy = disk = 0
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *columns = line.split()
        if name in names:
            user, nice, system, _idle, iowait, irq, softirq, steal = map(int, columns[:8])
            busy += user + nice + system + irq + softirq + steal
            disk += iowait
    second = os.sysconf("SC_CLK_TCK")
    return CoreTimes(busy / second, disk / second)


def own_seconds() -> float:
    """CPU time that this process and its ended children have used."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def rss_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    return field(Path(f"/proc/{pid}/status"), "VmRSS")


def field(path: Path, name: str) -> int:
    """The number in a line `name: number` of a file."""
    for line in path.read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise CheckFailed(f"{path} has no {name}")
