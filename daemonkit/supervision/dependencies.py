"""Which slave starts and stops after which."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..exceptions import RegistrationError


class Dependencies:
    """The graph of slaves' names. A name that was removed is kept as one that others start after,
    since a new slave may take it.

    after: maps each slave's name to the names of the slaves that it starts after. Raises
    RegistrationError for an unknown name and for a circular dependency.
    """

    def __init__(self, after: Mapping[str, Sequence[str]]) -> None:
        self._after: dict[str, Sequence[str]] = {}
        self._later: dict[str, dict[str, None]] = {}
        for name, earlier in after.items():
            _check_known(name, earlier, after)
            self.put(name, earlier)
        try:
            graphlib.TopologicalSorter(after).prepare()
        except graphlib.CycleError as error:
            raise _circular(reversed(error.args[1])) from None

    def check(self, name: str, after: Sequence[str]) -> None:
        """Raise RegistrationError unless a slave, maybe in place of an earlier one of that name,
        can start after these."""
        if name in after:
            raise _circular([name, name])
        _check_known(name, after, self._after)
        # Only a name that others start after can close a cycle; most are new.
        if name in self._later:
            for other in after:
                if path := find_path(other, name, self.earlier):
                    raise _circular([name, *path])

    def put(self, name: str, after: Sequence[str]) -> None:
        """Add a slave, or replace what it starts after."""
        self.remove(name)
        self._after[name] = after
        for other in after:
            self._later.setdefault(other, {})[name] = None

    def remove(self, name: str) -> None:
        """Remove a slave, if there is one of that name."""
        for other in self._after.pop(name, ()):
            later = self._later[other]
            later.pop(name, None)
            if not later:
                del self._later[other]

    def earlier(self, name: str) -> Sequence[str]:
        """The names of the slaves that this one starts after."""
        return self._after.get(name, ())

    def later(self, name: str) -> Iterable[str]:
        """The names of the slaves that start after this one."""
        return self._later.get(name, ())

    def depths(self) -> dict[str, int]:
        """Of each slave the length of the longest chain of others that stop after it."""
        depths: dict[str, int] = {}
        for name in graphlib.TopologicalSorter(self._after).static_order():
            depths[name] = max((1 + depths[other] for other in self.earlier(name)), default=0)
        return depths


def find_path(start: str, end: str, following: Callable[[str], Iterable[str]]) -> list[str]:
    """The names from `start` to `end`, both included; empty if no path leads there."""
    came_from: dict[str, str] = {start: ""}
    to_visit = [start]
    while to_visit:
        name = to_visit.pop()
        if name == end:
            path = [name]
            while path[0] != start:
                path.insert(0, came_from[path[0]])
            return path
        for other in following(name):
            if other not in came_from:
                came_from[other] = name
                to_visit.append(other)
    return []


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known name that is most like `name`, for an error message."""
    found = difflib.get_close_matches(name, [*known], n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def _check_known(name: str, after: Iterable[str], known: Mapping[str, object]) -> None:
    for other in after:
        if other not in known:
            hint = nearest(other, (n for n in known if n != name))
            raise RegistrationError(
                f"the slave {name!r} starts after {other!r}, which does not exist{hint}"
            )


def _circular(names: Iterable[str]) -> RegistrationError:
    cycle = " after ".join(names)
    return RegistrationError(f"circular dependency between slaves: {cycle}; remove one after=")
