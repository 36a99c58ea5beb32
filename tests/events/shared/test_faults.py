from __future__ import annotations

import logging

import pytest

from daemonkit import QueueFull, Unavailable
from daemonkit.events.shared.engine import EngineAway
from daemonkit.events.shared.faults import KEEPER, PUTS, EngineFaults


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def faults(changes: list[None]) -> EngineFaults:
    logger = logging.getLogger("engine")
    return EngineFaults("redis://host/0", logger, lambda: changes.append(None))


def test_an_engine_that_is_away_is_a_problem_until_it_works(
    faults: EngineFaults, changes: list[None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert (faults.problems(), faults.outage, faults.away_for(PUTS)) == ([], "", 0)
    for _ in range(3):
        faults.away(EngineAway("Connection refused"), PUTS)
    text = "the event queue's engine redis://host/0 is away: Connection refused"

    assert [tuple(problem) for problem in faults.problems()] == [(text, True)]
    assert faults.outage == text
    assert 0 < faults.away_for(PUTS) < 60
    refusal = faults.refusal()
    assert (type(refusal), str(refusal), refusal.retry_after) == (Unavailable, f"T{text[1:]}", 1)
    assert len(changes) == 1
    faults.works(PUTS)
    faults.works(PUTS)
    assert (faults.problems(), faults.outage, faults.away_for(PUTS), len(changes)) == ([], "", 0, 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_other_errors_are_reasons_too(faults: EngineFaults) -> None:
    faults.away(OSError(113, "No route to host"), PUTS)
    assert "No route to host" in faults.outage
    faults.away(ValueError("odd"), PUTS)
    assert faults.outage.endswith("is away: ValueError: odd")


def test_a_full_engine_refuses_until_events_are_stored(faults: EngineFaults) -> None:
    refusal = faults.full()

    assert isinstance(refusal, QueueFull)
    assert faults.is_full
    assert "is full (maxmemory)" in faults.outage
    faults.works(PUTS)
    assert faults.is_full
    faults.stored(confirmed=True)
    assert not faults.is_full


def test_too_few_replicas_are_a_problem_until_there_are_enough(faults: EngineFaults) -> None:
    refusal = faults.too_few_replicas(1, 2)

    assert str(refusal).startswith("1 instead of 2 replicas")
    assert faults.outage == "", "it may be accepted the next time"
    assert len(faults.problems()) == 1
    faults.stored(confirmed=True)
    assert faults.problems() == []


def test_it_is_away_while_one_connection_can_not_be_used(
    faults: EngineFaults, changes: list[None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(3):
        faults.away(EngineAway("READONLY You can't write"), PUTS)
        faults.away(EngineAway("Connection refused"), KEEPER)
        faults.works(KEEPER)
    assert faults.outage.endswith("is away: READONLY You can't write")
    assert (faults.is_away, faults.away_for(KEEPER)) == (True, 0)
    faults.away(EngineAway("Connection refused"), KEEPER)
    faults.stored(confirmed=True)
    assert (faults.is_away, faults.away_for(PUTS)) == (True, 0)
    faults.works(KEEPER)

    assert (faults.is_away, faults.outage, len(changes)) == (False, "", 2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_replicas_that_are_missing_are_a_problem_until_they_are_there(
    faults: EngineFaults,
) -> None:
    faults.replicas(0, 1)
    assert faults.lacks_replicas
    text = "0 instead of 1 replicas are connected to the event queue's engine redis://host/0"
    assert (text in faults.outage, text in str(faults.refusal())) == (True, True)
    faults.stored(confirmed=True)
    assert faults.doubts_replicas
    faults.replicas(1, 1)
    assert (faults.lacks_replicas, faults.doubts_replicas, faults.outage) == (False, False, "")
    # One that is connected and doesn't confirm is another matter.
    faults.too_few_replicas(0, 1)
    faults.replicas(1, 1)
    faults.stored(confirmed=False)
    assert faults.doubts_replicas
    faults.stored(confirmed=True)
    assert not faults.doubts_replicas
