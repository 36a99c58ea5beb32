from __future__ import annotations

from typing import Any

import pytest

from daemonkit.supervision.restart import Intensity, RestartPolicy
from daemonkit.supervision.states import BACKING_OFF, FAILED, FINISHED, Decision, decide

from ..clock import Clock

RESTARTED, DONE, DOWN = Decision(BACKING_OFF), Decision(FINISHED), Decision(FAILED)
EXHAUSTED = Decision(FAILED, "5 restarts within 60 s were not enough")
ALL_EXHAUSTED = Decision(
    FAILED, "5 restarts within 60 s of all slaves (master.max_restarts) were not enough", True
)


def intensity(*, exhausted: bool) -> Intensity:
    made = Intensity(5, 60, Clock())
    for _ in range(5 if exhausted else 4):
        made.count()
    return made


def not_restarted(restart: str) -> Decision:
    return Decision(FAILED, f"it is not restarted (restart is {restart!r})")


@pytest.mark.parametrize(
    ("restart", "exit", "expected"),
    [
        ("on-failure", {"failed": True}, RESTARTED),
        ("on-failure", {"failed": True, "exhausted": True}, EXHAUSTED),
        ("on-failure", {"failed": True, "all_exhausted": True}, ALL_EXHAUSTED),
        ("on-failure", {"failed": True, "exhausted": True, "all_exhausted": True}, EXHAUSTED),
        ("on-failure", {"all_exhausted": True}, DONE),
        ("never", {"failed": True, "all_exhausted": True}, not_restarted("never")),
        ("on-failure", {}, DONE),
        ("on-failure", {"exhausted": True}, DONE),
        ("on-failure", {"call_failed": True}, not_restarted("on-failure")),
        ("always", {"failed": True}, RESTARTED),
        ("always", {"failed": True, "exhausted": True}, EXHAUSTED),
        ("always", {}, RESTARTED),
        ("always", {"exhausted": True}, EXHAUSTED),
        ("always", {"call_failed": True}, RESTARTED),
        ("never", {"failed": True}, not_restarted("never")),
        ("never", {"failed": True, "exhausted": True}, not_restarted("never")),
        ("never", {}, DONE),
        ("never", {"call_failed": True}, not_restarted("never")),
    ],
)
def test_the_decision_after_an_exit(
    restart: Any, exit: dict[str, bool], expected: Decision
) -> None:
    facts = {"failed": False, "call_failed": False, **exit}
    own = intensity(exhausted=facts.pop("exhausted", False))
    of_all = intensity(exhausted=facts.pop("all_exhausted", False))

    decision = decide(RestartPolicy(restart), may_restart=True, own=own, of_all=of_all, **facts)

    assert decision == expected


@pytest.mark.parametrize("restart", ["on-failure", "always", "never"])
@pytest.mark.parametrize("exhausted", [True, False])
@pytest.mark.parametrize(
    ("failed", "call_failed", "expected"),
    [(False, False, DONE), (True, False, DOWN), (False, True, DOWN), (True, True, DOWN)],
)
def test_a_slave_that_was_asked_to_stop_is_not_restarted_and_does_not_give_up(
    restart: Any, exhausted: bool, failed: bool, call_failed: bool, expected: Decision
) -> None:
    decision = decide(
        RestartPolicy(restart),
        failed=failed,
        call_failed=call_failed,
        may_restart=False,
        own=intensity(exhausted=exhausted),
        of_all=intensity(exhausted=exhausted),
    )

    assert decision == expected
