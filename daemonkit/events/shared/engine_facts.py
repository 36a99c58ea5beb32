"""What the engine promises: its version, its durability and its memory, as its settings say."""

from __future__ import annotations

import logging
from typing import Any

from ...exceptions import StartError
from .engine import MINIMUM, Engine, EngineAway, EngineRefuses, Link
from .faults import EngineFaults
from .put import Replicas

WITH_WAITAOF = (7, 2)
SECTIONS = ("server", "persistence", "memory", "replication")


class EngineFacts:
    """The settings of one engine, looked at now and then.

    replicas: which must confirm.
    """

    def __init__(
        self,
        engine: Engine,
        faults: EngineFaults,
        logger: logging.Logger,
        replicas: Replicas,
    ) -> None:
        self.shown: dict[str, Any] = {"address": engine.shown}
        self._replicas = replicas
        self._faults = faults
        self._logger = logger
        self._warnings: list[str] = []

    def look(self, link: Link, *, at_start: bool = False) -> None:
        """Look at the settings; raises EngineAway, and at the start StartError for an engine that
        is too old."""
        try:
            info = _parsed(link.call("INFO", *SECTIONS))
        except EngineRefuses as error:
            # Without the right to look, all else works nevertheless.
            if "INFO" not in str(error).upper():
                raise
            self.shown = {"address": self.shown["address"], "version": "unknown (no right to INFO)"}
            return
        version = info.get("valkey_version") or info.get("redis_version", "0")
        if at_start and _numbers(version) < MINIMUM:
            least = ".".join(map(str, MINIMUM))
            raise StartError(
                f"the event queue's engine {self.shown['address']} is version {version}; it must "
                f"be Redis or Valkey {least} or newer"
            )
        if at_start and self._replicas.on_disk and _numbers(version) < WITH_WAITAOF:
            raise StartError(
                f"confirm.aof needs Redis 7.2, or Valkey, and the event queue's engine "
                f"{self.shown['address']} is version {version}"
            )
        has_aof = info.get("aof_enabled") == "1"
        policy = info.get("maxmemory_policy", "?")
        self.shown = {
            "address": self.shown["address"],
            "version": version,
            "appendfsync": self._appendfsync(link) if has_aof else "no (AOF is off)",
            "maxmemory_policy": policy,
            "maxmemory": int(info.get("maxmemory", 0)),
            "used_memory": int(info.get("used_memory", 0)),
            "replicas": int(info.get("connected_slaves", 0)),
        }
        self._warn(has_aof, policy)
        online = sum("state=online" in text for key, text in info.items() if key[:5] == "slave")
        self._faults.replicas(online, self._replicas.needed)
        maximum = int(info.get("maxmemory", 0))
        if self._faults.is_full and (not maximum or int(info.get("used_memory", 0)) < maximum):
            self._faults.has_memory()

    def _appendfsync(self, link: Link) -> str:
        try:
            found = link.call("CONFIG", "GET", "appendfsync")
        # A right that operators may not want to give.
        except EngineAway:
            return "unknown (CONFIG GET is not allowed)"
        return found[1].decode() if found else "unknown"

    def _warn(self, has_aof: bool, policy: str) -> None:
        warnings = []
        if not has_aof:
            warnings.append("keeps no append-only file: a restart of it loses events (appendonly)")
        if policy != "noeviction":
            warnings.append(
                f"may drop events when its memory is full (maxmemory-policy is {policy}, and "
                "should be noeviction)"
            )
        for warning in warnings:
            if warning not in self._warnings:
                self._logger.warning(
                    "The event queue's engine %s %s", self.shown["address"], warning
                )
        self._warnings = warnings


def _parsed(text: bytes) -> dict[str, str]:
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line and line[:1] != "#")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
