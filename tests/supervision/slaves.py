"""Slaves, and what `/status` shows of them."""

from __future__ import annotations

from typing import Any

from daemonkit import Slave
from daemonkit.testing import Client


class Worker(Slave):
    def __init__(self, url: str = "none", *, limit: int = 0) -> None:
        self.logger.info("making %s", self.name)
        self.arguments = (url, limit)

    def run(self) -> None:
        self.shutdown.wait()

    def status(self) -> dict[str, Any]:
        return {**super().status(), "arguments": self.arguments}


def raise_no() -> None:
    raise ValueError("no")


def slave_status(client: Client, name: str) -> dict[str, Any]:
    return next(slave for slave in client.status()["slaves"] if slave["name"] == name)


def wait_for_state(client: Client, name: str, state: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        shown = slave_status(client, name)
        return shown if shown["state"] == state else None

    found: dict[str, Any] = client.wait_until(look, f"{name} {state}")
    return found
