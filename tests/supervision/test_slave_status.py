from __future__ import annotations

from typing import Any

import pytest

from daemonkit import Daemon, Slave
from daemonkit.supervision.slave_status import problem_of, status_of
from daemonkit.testing import running
from daemonkit.types import Problem

from .slaves import Supervised, Worker


def fail() -> None:
    raise ValueError("no")


def shown(status: Any) -> Any:
    """What is shown of a slave whose `status()` returns `status`."""

    class Own(Slave):
        def run(self) -> None: ...

        def status(self) -> Any:
            return status

    return status_of(Supervised(Own).run())


def test_a_status_that_forgets_super_still_shows_name_start_and_state() -> None:
    own = shown({"hits": 3})

    assert (own["name"], own["state"], own["hits"]) == ("work", "finished", 3)
    assert own["started"] is not None


def test_an_override_of_status_takes_precedence() -> None:
    own = shown({"state": "mine"})

    assert (own["state"], own["restarts"]) == ("mine", 0)


@pytest.mark.parametrize("status", ["fine", None, [1, 2]])
def test_a_status_that_is_not_a_mapping_is_shown_as_it_is(status: Any) -> None:
    assert shown(status) == status


def test_a_status_that_is_a_coroutine_is_refused() -> None:
    async def status() -> None: ...

    with pytest.raises(TypeError, match="^it returned a coroutine"):
        shown(status())


def test_a_pending_restart_is_shown() -> None:
    supervised = Supervised(fail, backoff=(4, 4))
    slave = supervised.run()
    supervised.clock.now += 1

    assert status_of(slave)["next_restart_in"] == 3
    supervised.supervisor.request_stop()
    assert "next_restart_in" not in status_of(slave)


def test_a_status_that_raises_or_is_not_a_mapping_hides_no_other(app: Daemon) -> None:
    class Raises(Worker):
        def status(self) -> dict[str, Any]:
            raise ValueError("no status")

    class Odd(Worker):
        def status(self) -> Any:
            return "fine"

    for slave in (Raises, Odd, Worker):
        app.add_slave(slave)

    with running(app) as client:
        client.wait_until(lambda: client.status()["slaves"][2]["state"] == "running")
        raising, odd, _ = client.status()["slaves"]

    assert (raising["name"], raising["error"]) == ("Raises", "ValueError: no status")
    assert odd == "fine"


@pytest.mark.parametrize("critical", [True, False])
def test_only_the_failure_of_a_critical_slave_is_not_tolerable(critical: bool) -> None:
    waiting = problem_of(Supervised(fail, critical=critical, backoff=5).run())
    failed = problem_of(Supervised(fail, critical=critical, restart="never").run())

    assert waiting == Problem("the slave work is backing off", tolerable=True)
    assert failed == Problem("the slave work has failed", tolerable=not critical)
