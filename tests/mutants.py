"""Break the package in many places, one at a time, and list the changes that no test notices.

    python -m tests.mutants [--sample N] [--seed N] [--jobs N] [MODULE ...]

A MODULE is a file or folder of daemonkit; by default all of it. Of each file, a sample of changes is
tried in a copy of the tree, first with the module's own tests, then with those of its room; both
without tests/functional. Exits with 1 when fewer than 90 % are noticed.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
COPIED = [
    "daemonkit",
    "tests",
    "docs",
    ".ci",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "pyproject.toml",
]
OUTPUT = "output.txt"
TARGET = 0.9
TIMEOUT = 120
"""Seconds for one test; a change that makes it hang is noticed."""
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


class Mutant(NamedTuple):
    """A change of a file: the text from `start` to `stop` is replaced."""

    file: Path
    line: int
    start: int
    stop: int
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}:{self.line}: {old}  ->  {new}"


def mutants_of(file: Path) -> Iterator[Mutant]:
    """All changes of a file: only inside functions, and not in annotations or docstrings."""
    data = (ROOT / file).read_bytes()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _mutable(ast.parse(data), inside=False):
        for changed in _changes(node):
            start = starts[node.lineno - 1] + node.col_offset
            stop = starts[node.end_lineno - 1] + node.end_col_offset
            new = ast.unparse(changed)
            if isinstance(changed, ast.expr):
                new = f"({new})"
            yield Mutant(file, node.lineno, start, stop, data[start:stop].decode(), new)


def _mutable(node: ast.AST, inside: bool) -> Iterator[ast.AST]:
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(
            node, ast.Call
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            # Places inside f-strings are wrong before Python 3.12.
            if not isinstance(child, ast.AST) or isinstance(child, ast.JoinedStr):
                continue
            if inside and hasattr(child, "lineno"):
                yield child
            function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _mutable(child, inside or function)


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    changed = copy.deepcopy(node)
    if isinstance(changed, ast.Compare) and len(changed.ops) == 1:
        changed.ops = [OPPOSITES[type(changed.ops[0])]()]
        yield changed
    elif isinstance(changed, ast.BoolOp):
        changed.op = ast.And() if isinstance(changed.op, ast.Or) else ast.Or()
        yield changed
    elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
        yield changed.operand
    elif isinstance(changed, ast.Constant):
        if isinstance(changed.value, bool):
            yield ast.Constant(not changed.value)
        elif isinstance(changed.value, int):
            yield ast.Constant(changed.value + 1)
    elif isinstance(changed, ast.Expr) and isinstance(changed.value, ast.Call):
        yield ast.Pass()
    elif isinstance(changed, ast.Assign | ast.AugAssign):
        target = changed.targets[0] if isinstance(changed, ast.Assign) else changed.target
        if isinstance(target, ast.Attribute | ast.Subscript):
            yield ast.Pass()


def tests_of(file: Path) -> list[str]:
    """The tests of a module, and then the others of its room."""
    room = room_of(file)
    own = room / f"test_{file.stem.strip('_')}.py"
    found = [str(own)] if (ROOT / own).exists() else []
    return [*found, " ".join(path for path in tests_in(room) if path != str(own))]


def room_of(file: Path) -> Path:
    return Path("tests", *file.parts[1:-1])


def tests_in(room: Path) -> list[str]:
    whole = [str(path.relative_to(ROOT)) for path in sorted((ROOT / room).glob("test_*.py"))]
    # The tests of the benchmarks measure, and fail on a busy machine.
    return [path for path in whole if path != "tests/test_benchmarks.py"]


class Copies:
    """Copies of the tree, one for each job."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Path] = SimpleQueue()
        for number in range(count):
            place = folder / str(number)
            place.mkdir()
            for name in COPIED:
                source = ROOT / name
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__")
                    shutil.copytree(source, place / name, ignore=ignored)
                elif source.exists():
                    shutil.copy(source, place / name)
            self._free.put(place)

    def notices(self, mutant: Mutant, limit: float) -> bool:
        """Whether a test fails with a change, or doesn't end within `limit` seconds."""
        place = self._free.get()
        file = place / mutant.file
        data = file.read_bytes()
        try:
            file.write_bytes(data[: mutant.start] + mutant.new.encode() + data[mutant.stop :])
            return any(
                passes(place, tests, limit) is None for tests in tests_of(mutant.file) if tests
            )
        finally:
            file.write_bytes(data)
            self._free.put(place)

    def pass_unchanged(self, tests: str) -> float | None:
        place = self._free.get()
        try:
            # Twice, since a busy machine may have been the reason.
            for _ in range(2):
                if (seconds := passes(place, tests, limit=3600)) is not None:
                    return seconds
                print(*(place / OUTPUT).read_text(errors="replace").splitlines()[-3:], sep="\n")
            return None
        finally:
            self._free.put(place)


def passes(place: Path, tests: str, limit: float) -> float | None:
    """Seconds that the tests took, or None if one failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command.append(f"--timeout={TIMEOUT}")
    begun = time.monotonic()
    # Before an editable installation. Compiled files of an earlier change would be used.
    env = {**os.environ, "PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        with (place / OUTPUT).open("wb") as output:
            done = subprocess.run(
                [*command, *tests.split()],
                cwd=place,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit,
            )
    except subprocess.TimeoutExpired:
        return None
    return None if done.returncode else time.monotonic() - begun


def files_in(names: list[str]) -> list[Path]:
    places = [ROOT / name for name in names or ["daemonkit"]]
    found = {
        file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))
    }
    return sorted(file.relative_to(ROOT) for file in found)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--sample", type=int, default=4, help="changes of each file (4)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    options = parser.parse_args()
    chosen: list[Mutant] = []
    for file in files_in(options.modules):
        found = list(mutants_of(file))
        # The same of a file, whatever else is named.
        chance = random.Random(f"{options.seed} {file}")
        chosen += chance.sample(found, min(options.sample, len(found)))
    if not chosen:
        parser.error("there is nothing to change")
    with (
        tempfile.TemporaryDirectory(prefix="mutants-") as folder,
        ThreadPoolExecutor(options.jobs) as pool,
    ):
        copies = Copies(Path(folder), options.jobs)
        rooms = sorted({room_of(mutant.file) for mutant in chosen})
        unchanged = pool.map(copies.pass_unchanged, (" ".join(tests_in(room)) for room in rooms))
        took = dict(zip(rooms, unchanged, strict=True))
        failing = [str(room) for room, seconds in took.items() if seconds is None]
        if failing:
            print("these fail without any change:", *failing, sep="\n  ")
            return 2
        # A change may make the tests slower, and the machine may be busier by then.
        limits = [60 + 5 * (took[room_of(mutant.file)] or 0) for mutant in chosen]
        survived = []
        counts: dict[Path, list[bool]] = {room: [] for room in rooms}
        for mutant, is_noticed in zip(
            chosen, pool.map(copies.notices, chosen, limits), strict=True
        ):
            counts[room_of(mutant.file)].append(is_noticed)
            if not is_noticed:
                survived.append(mutant)
                print(mutant, flush=True)
    for room, verdicts in counts.items():
        print(f"{room}: {sum(verdicts)} of {len(verdicts)}")
    noticed = len(chosen) - len(survived)
    print(f"{noticed} of {len(chosen)} changes were noticed, {noticed / len(chosen):.0%}")
    return 0 if noticed >= TARGET * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
