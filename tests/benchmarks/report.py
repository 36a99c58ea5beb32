"""The results: a header that describes the machine, a table, a plot, and raw figures."""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from .bench import FLOODED, Bar, Bench, Row, named
from .durable import DURABLE_HTTP, PUTS
from .processes import PINNINGS, Cores
from .rows import HEADS, HTTP, IDLE, NDJSON_FIGURE, OURS, SENT, UDP

PACKAGES = (
    *("daemonkit", "Flask", "waitress", "gunicorn", "starlette", "fastapi", "uvicorn", "uvloop"),
    *("httptools", "aiohttp", "persist-queue", "litequeue", "huey"),
)
HEADINGS = ("figure", "daemonkit", "peer", "its figure", "ratio", "bar", "met")
IN_NUMBERS = (1, 3, 4)
"""Columns aligned to the right."""


@dataclass(frozen=True)
class Line:
    """One line of the table: daemonkit's median, a peer's, and how they compare."""

    figure: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    bar: str = ""
    met: bool | None = None
    margin: float | None = None
    """How far the bar is exceeded: 1 is exactly met, more is better."""


def fdatasync(folder: Path, times: int = 200) -> float:
    """Seconds to write a page to the disk, in a file that has room for it."""
    taken, page = [], bytes(4096)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(page * times)
        os.fsync(file.fileno())
        for number in range(times):
            began = time.perf_counter()
            os.pwrite(file.fileno(), page, number * len(page))
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return median(taken)


def machine(choices: Mapping[str, Cores], folder: Path) -> dict[str, Any]:
    """What the figures depend on. choices: cores by pinning; folder: where the files of durable
    queues are."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text("utf-8"), re.M)
    wrk = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "used": {
            pinning: {name: sorted(used) for name, used in vars(cores).items()}
            for pinning, cores in choices.items()
        },
        "kernel": platform.release().partition("-")[0],
        "python": platform.python_version(),
        "fdatasync": fdatasync(folder),
        "versions": {
            **{name: version(name) for name in PACKAGES},
            "SQLite": sqlite3.sqlite_version,
            "wrk": wrk.split()[1],
        },
    }


def header(facts: dict[str, Any]) -> str:
    """The machine's facts as text."""
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    used = "; ".join(
        f"{pinning}: servers on {_cores(cores['server'])}, load on {_cores(cores['load'])}"
        for pinning, cores in facts["used"].items()
    )
    return (
        f"{facts['cpu']}, {facts['cores']} cores ({used}); "
        f"Linux {facts['kernel']}, Python {facts['python']}; "
        f"fdatasync of a page {1e6 * facts['fdatasync']:.0f} µs\n{versions}"
    )


def _cores(numbers: list[int]) -> str:
    return f"core{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"


def lines(bench: Bench, rows: Sequence[Row]) -> list[Line]:
    """The lines of the table."""
    return [
        line
        for row in rows
        for pinning in bench.pinnings(row)
        for bar in row.bars
        for line in _compare(bench, replace(bar, figure=named(bar.figure, pinning)))
    ]


def _compare(bench: Bench, bar: Bar) -> list[Line]:
    figures = bench.figures[bar.figure]
    ours = median(figures[OURS])
    if not bar.peers:
        line = Line(bar.figure, bar.unit, ours)
        if bar.bar is None:
            return [line]
        margin = _margin(bar, ours)
        return [replace(line, bar=_bar_text(bar), met=margin >= 1, margin=margin)]
    medians = {peer: median(figures[peer]) for peer in bar.peers}
    best = (min if bar.at_most else max)(medians, key=medians.__getitem__)
    found = []
    for peer, theirs in medians.items():
        ratio = ours / theirs if theirs else 1.0 if ours == theirs else float("inf")
        line = Line(bar.figure, bar.unit, ours, peer, theirs, ratio)
        if bar.bar is not None and peer == best:
            margin = max(_margin(bar, ratio), ours / (bar.enough or float("inf")))
            met = figures[OURS] == figures[peer] if bar.exactly else margin >= 1
            line = replace(line, bar=_bar_text(bar), met=met, margin=margin)
        found.append(line)
    return found


def _margin(bar: Bar, value: float) -> float:
    assert bar.bar is not None
    if not bar.at_most:
        return value / bar.bar
    # Neither JSON nor a plot can show infinity.
    return bar.bar / max(value, bar.bar / 1000)


def _bar_text(bar: Bar) -> str:
    if bar.exactly:
        return "equal each time"
    sign = "<=" if bar.at_most else ">="
    either = "" if bar.enough is None else f" or {bar.enough:,g} {bar.unit}"
    return f"{sign} {bar.bar:.2f} x{either}" if bar.peers else f"{sign} {bar.bar:,g} {bar.unit}"


def table(results: Sequence[Line]) -> str:
    """A Markdown table, aligned."""
    cells = [
        (
            line.figure,
            _number(line.ours, line.unit),
            line.peer,
            "" if line.theirs is None else _number(line.theirs, line.unit),
            "" if line.ratio is None else f"{line.ratio:.2f}",
            line.bar,
            {None: "", True: "yes", False: "NO"}[line.met],
        )
        for line in results
    ]
    widths = [max(map(len, column)) for column in zip(HEADINGS, *cells, strict=True)]
    rule = tuple(
        "-" * (width - 1) + ":" if place in IN_NUMBERS else "-" * width
        for place, width in enumerate(widths)
    )
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if place in IN_NUMBERS else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (HEADINGS, rule, *cells)
    )


def _number(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:.3g}"
    return f"{text} {unit}".rstrip()


def notes(bench: Bench) -> list[str]:
    """What else a reader of the table should know."""
    found = []
    of_sent = [bench.figures[named(SENT, pinning)] for pinning in PINNINGS]
    if sent := [value for figure in of_sent for values in figure.values() for value in values]:
        found.append(f"UDP: {min(sent):,.0f} to {max(sent):,.0f} datagrams/s were sent.")
    shares = [share for of_figure in bench.shares.values() for share in of_figure]
    slow = [share for share in shares if share.undisturbed < FLOODED]
    if slow:
        disturbed = sum(share.others > 1 - FLOODED for share in slow)
        found.append(
            f"{len(slow)} of {len(shares)} floods were disturbed, although they were measured twice: "
            f"in {disturbed} of them something else used more than {1 - FLOODED:.0%} of a core, in "
            "the others the load did not keep up."
        )
    return found


def write_json(path: str, facts: dict[str, Any], bench: Bench, results: Sequence[Line]) -> None:
    """Write the raw figures and the results."""
    document = {
        "machine": facts,
        "rounds": bench.rounds,
        "seconds": bench.seconds,
        "figures": bench.figures,
        "shares": {
            figure: [vars(share) for share in shares] for figure, shares in bench.shares.items()
        },
        "results": [vars(line) for line in results],
    }
    Path(path).write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def plot(path: str, facts: dict[str, Any], bench: Bench, results: Sequence[Line]) -> None:
    """Draw everyone's events per second, and how far each bar is met."""
    # Not before the servers are started: numpy has threads, and a process with threads forks badly.
    import matplotlib  # noqa: PLC0415

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    wanted = (HTTP, HEADS, IDLE, NDJSON_FIGURE, UDP, DURABLE_HTTP, PUTS)
    names = (named(figure, pinning) for figure in wanted for pinning in PINNINGS)
    rates = [figure for figure in names if bench.figures[figure]]
    barred = [line for line in results if line.margin is not None]
    heights = [len(bench.figures[figure]) + 1.5 for figure in rates] + [len(barred) + 1.5]
    drawing, axes = pyplot.subplots(
        len(heights),
        figsize=(10, 0.3 * sum(heights) + 1),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for figure, panel in zip(rates, axes[:, 0], strict=False):
        _draw_rates(panel, figure, bench.figures[figure])
    _draw_margins(axes[-1, 0], barred)
    drawing.suptitle(header(facts).splitlines()[0], fontsize="small")
    drawing.savefig(path, dpi=120)
    pyplot.close(drawing)


def _draw_rates(panel: Any, figure: str, values: dict[str, list[float]]) -> None:
    ranked = sorted(values, key=lambda whose: median(values[whose]))
    colours = ["tab:orange" if whose == OURS else "tab:gray" for whose in ranked]
    panel.barh(ranked, [median(values[whose]) for whose in ranked], color=colours)
    for whose in ranked:
        panel.plot(values[whose], [whose] * len(values[whose]), "k|")
    panel.set_title(f"{figure}, events/s (bars: medians; strokes: rounds)", fontsize="medium")
    panel.xaxis.set_major_formatter("{x:,.0f}")


def _draw_margins(panel: Any, barred: Sequence[Line]) -> None:
    names = [f"{line.figure}{' / ' + line.peer if line.peer else ''} {line.bar}" for line in barred]
    shown = [min(line.margin or 0.0, 100.0) for line in barred]
    colours = ["tab:green" if line.met else "tab:red" for line in barred]
    panel.barh(names[::-1], shown[::-1], color=colours[::-1])
    panel.axvline(1.0, color="black", linewidth=1)
    panel.set_xscale("log")
    panel.set_title("How far each bar is met (right of 1: met)", fontsize="medium")
    panel.tick_params(axis="y", labelsize="small")


def show(facts: dict[str, Any], bench: Bench, results: Sequence[Line]) -> None:
    """Print the header, the table and the notes."""
    print(header(facts), end="\n\n")
    print(table(results))
    for note in notes(bench):
        print("\n" + note)
    sys.stdout.flush()
