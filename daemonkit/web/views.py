"""What the routes call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..events.failed import FailedEvents
from ..events.intake import Intake
from ..monitoring.health import Health
from .access import Access
from .control import Answer


class Views(NamedTuple):
    """What the routes call: plain callables, so that nothing here knows the daemon."""

    access: Callable[[], Access]
    control: Callable[[str, Mapping[str, Any], str], Answer]
    failed_events: Callable[[], FailedEvents]
    history: Callable[[float], Any]
    metrics: Callable[[str], tuple[bytes, str]]
    pause_line: Callable[[], str]
    intake: Callable[[], Intake]
    max_request_size: Callable[[], int]
    options: Callable[[], list[dict[str, Any]]]
    page_is_on: Callable[[], bool]
    warnings: Callable[[bool], list[dict[str, Any]]]
    status: Callable[[], Any]
    ping: Callable[[], Any]
    health: Health
    logger: logging.Logger
