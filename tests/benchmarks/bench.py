"""A run: rows measured in rounds, their figures, and the bars that they must meet."""

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
"""The longest flood of datagrams."""
FLOODED = 0.9
"""Share of its core that a flooded server should use, or that other processes should leave unused
where the server can't use it all or isn't pinned; with less, the flood is measured again."""
ATTEMPTS = 2

Value = TypeVar("Value")


@dataclass
class Bench:
    """A run: its settings, and its figures so far."""

    choices: Mapping[str, Cores]
    """The cores for each pinning that is measured."""
    rounds: int
    seconds: int
    folder: Path
    """For files of durable queues."""
    pinning: str = PINNED
    figures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    """By figure, see `named`, and by peer: a value for each time it was measured."""
    shares: dict[str, list[Shares]] = field(default_factory=lambda: defaultdict(list))
    """By figure: how the server's cores were shared in each flood that counts."""

    @property
    def cores(self) -> Cores:
        return self.choices[self.pinning]

    def pin(self, pinning: str) -> None:
        """From now on, run servers and load on separate cores, or both on all."""
        self.pinning = pinning
        os.sched_setaffinity(0, self.cores.load)

    def pinnings(self, row: Row) -> list[str]:
        """The pinnings with which a row is measured in this run."""
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
        """The result of `measure` for which the server had most of its core: on a busy machine, a
        flood may be slowed down.

        is_full: whether the server uses all of its core under this load, when pinned.
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
        """Make a server; queue: the file of a durable one, a new file by default."""
        return Server(peer, self.cores.server, udp=udp, queue=queue or self.new_file())

    def new_file(self) -> Path:
        """The path of a file to be created, in a new folder."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "events.db"


def named(figure: str, pinning: str) -> str:
    """The name of a figure that is measured with this pinning."""
    return f"{figure}, {UNPINNED}" if pinning == UNPINNED else figure


Sample = tuple[str, str, float]
"""The figure, the peer, and the value."""


@dataclass(frozen=True)
class Bar:
    """What a figure is compared with, and the required result.

    peers: by whose figures daemonkit's is divided; of several, the bar applies to the best one.
    Without any, the bar applies to daemonkit's figure itself. bar: None shows the comparison only;
    enough: a figure of daemonkit's that meets the bar whatever the ratio is.
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
    """One row: the function that measures it, its bars, the peers that it relies on, and the
    pinnings with which it is measured."""

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
            _report(f"check over HTTP, {pinning}: {_full_name(peer)}")
            with bench.server(peer) as server:
                check_exactly(server)
        for peer in dict.fromkeys(peer for row in chosen for peer in row.udp):
            _report(f"check over UDP, {pinning}: {_full_name(peer)}")
            with bench.server(peer, udp=True) as server:
                check_datagrams(server)
    for number in range(1, bench.rounds + 1):
        for row in rows:
            for pinning in bench.pinnings(row):
                bench.pin(pinning)
                for sample, whose, value in row.measure(bench):
                    figure = named(sample, pinning)
                    bench.figures[figure][whose].append(value)
                    _report(f"round {number} of {bench.rounds}, {figure}, {whose}: {value:,.6g}")


def _full_name(peer: Peer) -> str:
    return (
        peer.name
        + (", durable" if peer.is_durable else "")
        + (", with a thread that computes" if peer.computes else "")
    )


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
