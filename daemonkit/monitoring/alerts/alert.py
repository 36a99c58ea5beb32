"""What is sent: the state of one service."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from ...text import describe

OK = "OK"
STATUSES = (OK, "INFO", "WARN", "CRIT")
"""From the best to the worst."""


class Alert(NamedTuple):
    """The state of one service on one host.

    since: when it got this status; previous: the status that was sent before, None for the first;
    the same as `status` if it is repeated.
    """

    host: str
    service: str
    status: str
    description: str
    since: datetime | None = None
    previous: str | None = None

    def __str__(self) -> str:
        return f"{self.service} on {self.host}: {self.status}, {self.description}"

    @property
    def is_repeated(self) -> bool:
        """Whether this status was sent already."""
        return self.previous == self.status


def check_status(status: object, whose: str) -> None:
    """Raise ValueError unless it is one of STATUSES; whose: begins the message."""
    if status not in STATUSES:
        raise ValueError(f"{whose} status is one of {', '.join(STATUSES)}, not {describe(status)}")


def check_texts(**texts: object) -> None:
    """Raise TypeError for what isn't a string, by its name."""
    for field, text in texts.items():
        if not isinstance(text, str):
            raise TypeError(f"the {field} of an alert must be a string, not {describe(text)}")
