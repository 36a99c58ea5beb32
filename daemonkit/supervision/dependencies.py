"""The order in which slaves start and stop."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable, Mapping, Sequence

from ..exceptions import RegistrationError


class Dependencies:
    """after: maps each slave's name to the names of the slaves that it starts after.

    Raises RegistrationError for an unknown name and for a circular dependency.
    """

    def __init__(self, after: Mapping[str, Sequence[str]]) -> None:
        self._after = after
        for name, earlier in after.items():
            for other in earlier:
                if other not in after:
                    raise RegistrationError(_unknown(name, other, after))
        self._depths: dict[str, int] = {}
        try:
            for name in graphlib.TopologicalSorter(after).static_order():
                self._depths[name] = max((1 + self._depths[o] for o in after[name]), default=0)
        except graphlib.CycleError as error:
            # In the list, each slave starts before the next.
            cycle = " after ".join(reversed(error.args[1]))
            raise RegistrationError(
                f"circular dependency between slaves: {cycle}; remove one after="
            ) from None

    def stop_order(self) -> graphlib.TopologicalSorter[str]:
        """Yields a name once all slaves that started after it are done."""
        later: dict[str, list[str]] = {name: [] for name in self._after}
        for name, earlier in self._after.items():
            for other in earlier:
                later[other].append(name)
        return graphlib.TopologicalSorter(later)

    def depth(self, name: str) -> int:
        """Length of the longest chain of slaves that can only stop after this one."""
        return self._depths[name]


def _unknown(name: str, other: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(other, [n for n in known if n != name], n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the slave {name!r} starts after {other!r}, which does not exist{hint}"
