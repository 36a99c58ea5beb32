"""Log records for tests."""

from __future__ import annotations

import logging
from typing import Any


def record(message: str = "hello", *args: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "app", "levelno": 20, "levelname": "INFO", "msg": message, "args": args, **extra}
    )
    made.threadName = extra.get("threadName", "worker")
    return made


def hide(text: str) -> str:
    return text.replace("hush", "*")
