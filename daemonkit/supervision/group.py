"""Slaves that are restarted together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..exceptions import RegistrationError
from .restart import RestartPolicy, Restarts

S = TypeVar("S")

SHARED = ("max_restarts", "within", "backoff")
"""Options that the members of a group have in common, as they share one counter."""


class Group(Generic[S]):
    """The members of a group, and their one restart counter; like one_for_all in Erlang/OTP.

    policy: the first member's; clock: monotonic seconds.
    """

    def __init__(self, name: str, policy: RestartPolicy, clock: Callable[[], float]) -> None:
        self.name = name
        self.members: dict[str, S] = {}
        self.restarts = Restarts(policy, clock)
        self.restarted = 0
        """How often the group was restarted."""
        self.ending = 0
        """Members that still run and are to end before any is started again."""
        self.failed: S | None = None
        """The member that has failed for good, so that none runs."""
        self._policy = policy

    def check(self, name: str, policy: RestartPolicy) -> None:
        """Raise RegistrationError unless the new member `name` has the others' restart options."""
        for option in SHARED:
            ours, theirs = getattr(self._policy, option), getattr(policy, option)
            if ours != theirs:
                other = next(iter(self.members), "another member")
                raise RegistrationError(
                    f"the slaves of the group {self.name!r} have one restart counter: {option} is "
                    f"{ours!r} for {other!r} and {theirs!r} for {name!r}; give them the same"
                )
