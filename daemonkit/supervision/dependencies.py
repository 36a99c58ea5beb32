"""Which slave starts after which, and stops before it."""

from __future__ import annotations

import difflib
import graphlib
from collections.abc import Iterable, Mapping, Sequence

from ..exceptions import RegistrationError


class Dependencies:
    """`after` maps each name to the names it starts after.

    Raises RegistrationError for a name that isn't there, and for slaves that wait for each other.
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
            # Each one in the list is to start before the next.
            circle = " after ".join(reversed(error.args[1]))
            raise RegistrationError(
                f"slaves can't start after each other: {circle}; leave out one after="
            ) from None

    def stop_order(self) -> graphlib.TopologicalSorter[str]:
        """Gives a name once all that started after it are done."""
        later: dict[str, list[str]] = {name: [] for name in self._after}
        for name, earlier in self._after.items():
            for other in earlier:
                later[other].append(name)
        return graphlib.TopologicalSorter(later)

    def depth(self, name: str) -> int:
        """How many slaves, one after another, can stop only after this one."""
        return self._depths[name]


def _unknown(name: str, other: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(other, [n for n in known if n != name], n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    return f"the slave {name!r} is to start after {other!r}, and there is none of that name{hint}"
