"""Processes: on which core each runs, how it is started and ended, and what proc(5) tells of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 20.0
"""Seconds for anything that is waited for."""


class CheckFailed(Exception):
    """A server did not do the job, or the measurement is worth nothing."""


@dataclass(frozen=True)
class Cores:
    """The core that servers run on, and the one that loads them."""

    server: int
    load: int

    @classmethod
    def choose(cls) -> Cores | None:
        """The first and the last core that this process may use; None when it has one only."""
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1]) if len(allowed) > 1 else None


def spawn(arguments: Sequence[str], core: int, **options: Any) -> subprocess.Popen[bytes]:
    """Start `python ARGUMENTS...` on one core, in a process group of its own."""
    # What is measured is neither coverage nor the compiling of what is compiled once.
    unwanted = ("COVERAGE_", "COV_CORE_", "PYTHONDONTWRITEBYTECODE")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(unwanted)}
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        **options,
    )


def output_of(arguments: Sequence[str], core: int) -> bytes:
    """What `python ARGUMENTS...` prints, run on one core to its end."""
    process = spawn(arguments, core, stdout=subprocess.PIPE)
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
    """Wait for its end; False when it doesn't come in time."""
    # Popen.wait with a time-out looks only every 50 ms.
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
    """Seconds since the machine was started: a core was busy, or idle while what ran on it waits
    for the disk."""

    busy: float
    disk: float


def core_times(core: int) -> CoreTimes:
    """What proc(5) has of a core."""
    for line in Path("/proc/stat").read_text("ascii").splitlines():
        name, *columns = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, iowait, irq, softirq, steal = map(int, columns[:8])
            busy, second = user + nice + system + irq + softirq + steal, os.sysconf("SC_CLK_TCK")
            return CoreTimes(busy / second, iowait / second)
    raise CheckFailed(f"/proc/stat has no core {core}")


def rss_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    return field(Path(f"/proc/{pid}/status"), "VmRSS")


def field(path: Path, name: str) -> int:
    """The number in a line `name: number` of a file."""
    for line in path.read_text("ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise CheckFailed(f"{path} has no {name}")
