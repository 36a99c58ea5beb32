"""The form of every answer of the library: `{"message": ..., "result": true|false}`."""

from __future__ import annotations

import json
from typing import Any

CONTENT_TYPE = "application/json"


def envelope(message: Any, result: bool, **more: Any) -> bytes:
    """The body of an answer; `message` must be what JSON can hold."""
    return json.dumps({"message": message, "result": result, **more}).encode() + b"\n"
