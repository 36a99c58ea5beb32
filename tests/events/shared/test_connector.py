from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from daemonkit.events.shared import connector as module
from daemonkit.events.shared.address import parse
from daemonkit.events.shared.connector import BackOff, Connector
from daemonkit.events.shared.engine import Engine as EngineLink
from daemonkit.events.shared.faults import EngineFaults

from ...engines import Engine
from .conftest import wait_until


def test_pauses_grow_up_to_a_limit_and_have_jitter() -> None:
    back_off = BackOff()
    pauses = [back_off.next() for _ in range(20)]

    assert module.FIRST_PAUSE / 2 <= pauses[0] <= module.FIRST_PAUSE
    assert all(module.LONGEST_PAUSE / 2 <= pause <= module.LONGEST_PAUSE for pause in pauses[10:])
    assert len(set(pauses[10:])) > 1
    back_off.reset()
    assert back_off.next() <= module.FIRST_PAUSE


def made(address: str, **faults: Any) -> tuple[Connector, EngineFaults, threading.Event]:
    known = EngineFaults(address, logging.getLogger("engine"), lambda: None)
    called = threading.Event()
    engine = EngineLink(parse(address), "app", "")
    return Connector(engine, known, called.set), known, called


def test_a_connection_is_made_and_another_one_when_asked_for(engine: Engine) -> None:
    connector, faults, called = made(engine.address())
    connector.start()
    try:
        assert called.wait(10)
        first = connector.take()
        assert first is not None
        assert connector.take() is None
        first.disconnect()
        called.clear()
        connector.request()
        assert called.wait(10)
        assert not faults.problems()
    finally:
        # The second one is closed by the end of the thread.
        connector.request_stop()
        assert connector.join(10)


def test_a_stop_while_it_connects_is_not_missed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector, _, called = made(engine.address())
    real = connector._engine.connect

    def connect() -> Any:
        connection = real()
        connector.request_stop()
        return connection

    monkeypatch.setattr(connector._engine, "connect", connect)
    connector.start()

    assert called.wait(10)
    assert connector.join(10)


def test_an_engine_that_is_away_is_tried_again(own_engine: Engine) -> None:
    own_engine.kill()
    connector, faults, called = made(own_engine.address())
    connector.start()
    try:
        wait_until(faults.problems)
        own_engine.start()
        assert called.wait(10)
        # Until something has been stored.
        assert faults.problems()
    finally:
        connector.request_stop()
        assert connector.join(10)


def test_an_error_of_our_own_does_not_end_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    connector, faults, called = made(engine.address())
    monkeypatch.setattr(connector._engine, "connect", lambda: 1 / 0)
    connector.start()
    try:
        wait_until(lambda: "ZeroDivisionError" in "".join(p.text for p in faults.problems()))
        monkeypatch.undo()
        assert called.wait(10)
    finally:
        connector.request_stop()
        assert connector.join(10)
