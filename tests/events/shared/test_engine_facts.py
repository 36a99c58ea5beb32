from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from daemonkit import StartError
from daemonkit.events.shared.address import parse
from daemonkit.events.shared.engine import Engine as EngineLink
from daemonkit.events.shared.engine import Link
from daemonkit.events.shared.engine_facts import EngineFacts
from daemonkit.events.shared.faults import EngineFaults
from daemonkit.events.shared.put import Replicas

from ...engines import Engine, running_engine


class Looker:
    """Looks at an engine's settings."""

    def __init__(self, address: str) -> None:
        logger = logging.getLogger("engine")
        self.engine = EngineLink(parse(address), "app", "")
        self.faults = EngineFaults(self.engine.shown, logger, lambda: None)
        self.facts = EngineFacts(self.engine, self.faults, logger, Replicas())
        self.link = Link(self.engine)

    def look(self, **options: Any) -> dict[str, Any]:
        self.facts.look(self.link, **options)
        return self.facts.shown


@pytest.fixture
def looker(engine: Engine) -> Iterator[Looker]:
    looker = Looker(engine.address())
    yield looker
    looker.link.close()


def test_what_an_engine_promises_is_shown(looker: Looker, caplog: pytest.LogCaptureFixture) -> None:
    shown = looker.look(at_start=True)

    assert shown["version"].startswith(("7.", "8."))
    assert (shown["appendfsync"], shown["maxmemory_policy"]) == ("everysec", "noeviction")
    assert (shown["replicas"], shown["maxmemory"]) == (0, 0)
    assert shown["used_memory"] > 100_000
    assert not caplog.records


def test_what_may_lose_events_is_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_engine(tmp_path, appendonly="no", maxmemory_policy="allkeys-lru") as engine:
        looker = Looker(engine.address())
        shown = looker.look()
        looker.look()
        looker.link.close()

    assert shown["appendfsync"] == "no (AOF is off)"
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "keeps no append-only file" in caplog.text
    assert "maxmemory-policy is allkeys-lru" in caplog.text


def test_an_old_engine_ends_the_start(looker: Looker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looker.link, "call", lambda *_: b"redis_version:6.2.14\r\n")
    with pytest.raises(StartError, match=r"is version 6\.2\.14; it must be Redis or Valkey 7\.0"):
        looker.look(at_start=True)


def test_without_the_rights_to_look_all_else_works(
    engine: Engine, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.execute_command(
        *("ACL", "SETUSER", "plain", "on", ">pw", "~*", "+@all", "-config", "-info")
    )
    looker = Looker(engine.address().replace("//", "//plain:pw@"))
    try:
        assert looker.look(at_start=True)["version"] == "unknown (no right to INFO)"
        client.execute_command("ACL", "SETUSER", "plain", "+info")
        assert looker.look()["appendfsync"] == "unknown (CONFIG GET is not allowed)"
    finally:
        looker.link.close()
        client.execute_command("ACL", "DELUSER", "plain")


def test_memory_that_is_there_again_ends_the_fault(looker: Looker, client: redis.Redis) -> None:
    client.config_set("maxmemory", "1")
    looker.faults.full()
    looker.look()
    assert looker.faults.is_full
    client.config_set("maxmemory", "0")
    looker.look()
    assert not looker.faults.is_full
