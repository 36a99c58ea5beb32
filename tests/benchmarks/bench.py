"""A run of rows: rounds in which everybody has a turn, figures, and the bars they have to meet."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from .datagrams import check_datagrams
from .load import check_exactly
from .processes import PINNED, PINNINGS, UNPINNED, Cores
from .servers import Peer, Server, Shares

FLOOD_SECONDS = 2.0
"""Of a flood of datagrams, at most."""
FLOODED = 0.9
"""Share of its core that a flooded server should use, or that others should leave alone where it
can't or isn't pinned to one; with less, the flood is measured again."""
ATTEMPTS = 2

Value = TypeVar("Value")


@dataclass
class Bench:
    """A run: its settings, and what it has found out so far."""

    choices: Mapping[str, Cores]
    """By pinning; those that are measured."""
    rounds: int
    seconds: int
    folder: Path
    """For files of durable queues."""
    pinning: str = PINNED
    figures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By figure, see `named`, and by who it is of, a value for each time it was measured."""
    shares: dict[str, list[Shares]] = field(default_factory=lambda: defaultdict(list))
    """By figure, how the server's cores were shared in each flood that counts."""

    @property
    def cores(self) -> Cores:
        return self.choices[self.pinning]

    def pin(self, pinning: str) -> None:
        """Have servers and load run on their own cores each, or both on all, from now on."""
        self.pinning = pinning
        os.sched_setaffinity(0, self.cores.load)

    def pinnings(self, row: Row) -> list[str]:
        """How a row is measured in this run."""
        return [pinning for pinning in row.pinnings if pinning in self.choices]

    @property
    def flood_seconds(self) -> float:
        return min(FLOOD_SECONDS, self.seconds)

    def undisturbed(
        self,
        figure: str,
        measure: Callable[[], tuple[Value, Shares]],
        *,
        is_full: bool = True,
    ) -> Value:
        """What `measure` returns, where the server had most of its core: on a machine that does
        something else too, one flood may have been slowed down.

        is_full: whether the load is such that it uses all of it, when pinned.
        """
        attempts = []
        for _ in range(ATTEMPTS):
            value, shares = measure()
            shares = replace(shares, is_full=is_full and self.pinning == PINNED)
            attempts.append((value, shares))
            if shares.undisturbed >= FLOODED:
                break
        value, shares = max(attempts, key=lambda attempt: attempt[1].undisturbed)
        self.shares[named(figure, self.pinning)].append(shares)
        return value

    def server(self, peer: Peer, *, udp: bool = False, queue: Path | None = None) -> Server:
        """queue: the file of one that is durable, a new one by default."""
        return Server(peer, self.cores.server, udp=udp, queue=queue or self.new_file())

    def new_file(self) -> Path:
        """Where there is none yet, in a folder of its own."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "events.db"


def named(figure: str, pinning: str) -> str:
    """The name of a figure when it is measured so."""
    return f"{figure}, {UNPINNED}" if pinning == UNPINNED else figure


Sample = tuple[str, str, float]
"""The figure, whose it is, and its value."""


@dataclass(frozen=True)
class Bar:
    """What a figure is compared with, and what is demanded of it.

    peers: by whose figures daemonkit's is divided; of several, the best one carries the bar. With
    none, the bar is for daemonkit's figure itself. bar: None shows the comparison only; enough:
    a figure of daemonkit's with which the bar is met whatever the ratio is.
    """

    figure: str
    unit: str
    peers: tuple[str, ...] = ()
    bar: float | None = None
    enough: float | None = None
    at_most: bool = False
    exactly: bool = False


@dataclass(frozen=True)
class Row:
    """One row: what it yields each time it is measured, which peers it relies on, and how servers
    and load may be pinned."""

    name: str
    measure: Callable[[Bench], Iterator[Sample]]
    bars: tuple[Bar, ...]
    http: tuple[Peer, ...] = ()
    udp: tuple[Peer, ...] = ()
    pinnings: tuple[str, ...] = PINNINGS


def run(bench: Bench, rows: Sequence[Row]) -> None:
    """Check that each peer does its job, and then measure each row once a round, pinned and
    unpinned in turn."""
    for pinning in bench.choices:
        bench.pin(pinning)
        chosen = [row for row in rows if pinning in row.pinnings]
        for peer in dict.fromkeys(peer for row in chosen for peer in row.http):
            _tell(f"check over HTTP, {pinning}: {_full_name(peer)}")
            with bench.server(peer) as server:
                check_exactly(server)
        for peer in dict.fromkeys(peer for row in chosen for peer in row.udp):
            _tell(f"check over UDP, {pinning}: {_full_name(peer)}")
            with bench.server(peer, udp=True) as server:
                check_datagrams(server)
    for number in range(1, bench.rounds + 1):
        for row in rows:
            for pinning in bench.pinnings(row):
                bench.pin(pinning)
                for sample, whose, value in row.measure(bench):
                    figure = named(sample, pinning)
                    bench.figures[figure][whose].append(value)
                    _tell(f"round {number} of {bench.rounds}, {figure}, {whose}: {value:,.6g}")


def _full_name(peer: Peer) -> str:
    return (
        peer.name
        + (", durable" if peer.is_durable else "")
        + (", with a thread that computes" if peer.computes else "")
    )


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
