"""`python -m tests.benchmarks`: measure daemonkit and its peers in turn, and print the results."""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from . import report
from .bench import Bench, run
from .processes import PINNINGS, CheckFailed, Cores
from .rows import ROWS

PEER_PACKAGES = (
    *("aiohttp", "fastapi", "gunicorn", "starlette", "uvicorn", "uvloop", "httptools"),
    *("persist-queue", "litequeue", "huey", "matplotlib", "redis", "dramatiq", "faststream"),
)
BOTH = "both"
EPILOG = """\
exit status: 0 all bars are met; 1 a server did not do its job; 2 usage, or a requirement is
missing; 3 a bar is not met"""


def missing() -> str | None:
    """What must be installed first, and how."""
    absent = []
    for package in PEER_PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            absent.append(package)
    wanted = []
    if shutil.which("wrk") is None:
        wanted.append("wrk is missing: apt-get install wrk")
    if shutil.which("redis-server") is None:
        wanted.append("redis-server is missing: apt-get install redis-server")
    if absent:
        wanted.append(f"{', '.join(absent)} missing: pip install -e '.[bench]'")
    return "; ".join(wanted) or None


def no_disk(folder: str) -> str | None:
    """Why a folder can't be used for the files of durable queues."""
    found = subprocess.run(
        ("stat", "--file-system", "--format=%T", folder), capture_output=True, text=True
    )
    if found.returncode:
        return found.stderr.strip()
    if (kind := found.stdout.strip()) in ("tmpfs", "ramfs"):
        return f"{folder} is in memory ({kind}): --folder must be on a disk"
    return None


def at_least_one(text: str) -> int:
    """A whole number >= 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="Measure daemonkit and its peers doing the same job.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(names)}; all")
    parser.add_argument("--rounds", type=at_least_one, metavar="N", default=5, help="default 5")
    parser.add_argument(
        "--seconds", type=at_least_one, metavar="S", default=3, help="of a wrk run, default 3"
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second")
    parser.add_argument(
        "--pinning",
        choices=(*PINNINGS, BOTH),
        default=BOTH,
        help="servers on one core and load on another, or both on all; default %(default)s",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the results, as PNG for example")
    parser.add_argument("--json", metavar="FILE", help="write the raw figures")
    parser.add_argument(
        "--folder",
        metavar="DIR",
        default="/var/tmp",
        help="on a disk, for the files of durable queues, default %(default)s",
    )
    options = parser.parse_args(arguments)
    for name in options.rows:
        if name not in names:
            parser.error(f"there is no row {name!r}; the rows are {', '.join(names)}")
    options.pinnings = PINNINGS if options.pinning == BOTH else (options.pinning,)
    rows = [row for row in ROWS if not options.rows or row.name in options.rows]
    options.chosen = [row for row in rows if set(options.pinnings) & set(row.pinnings)]
    if options.rows and options.chosen != rows:
        missed = ", ".join(row.name for row in rows if row not in options.chosen)
        parser.error(f"not measured {options.pinning}: {missed}")
    if options.quick:
        options.rounds = options.seconds = 1
    return options


def main() -> int:
    """Measure what the command line selects; returns the exit status."""
    options = parse(sys.argv[1:])
    if lack := missing():
        print(lack, file=sys.stderr)
        return 2
    cores = Cores.choose()
    if cores is None:
        print("at least two cores are needed, one of them for the load", file=sys.stderr)
        return 2
    if lack := no_disk(options.folder):
        print(lack, file=sys.stderr)
        return 2
    # SIGTERM, too, must unwind the stack and end the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    choices = {pinning: cores[pinning] for pinning in options.pinnings}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(choices, options.rounds, options.seconds, Path(folder))
        facts = report.machine(choices, bench.folder)
        try:
            run(bench, options.chosen)
        except CheckFailed as error:
            print(f"{error}\nA bar that is met by not doing the job is a defect.", file=sys.stderr)
            return 1
    results = report.lines(bench, options.chosen)
    report.show(facts, bench, results)
    if options.json:
        report.write_json(options.json, facts, bench, results)
    if options.plot:
        report.plot(options.plot, facts, bench, results)
    return 3 if any(line.met is False for line in results) else 0


if __name__ == "__main__":
    sys.exit(main())
