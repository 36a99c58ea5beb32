"""The form of the library's answers: `{"message": ..., "result": true|false}`."""

from __future__ import annotations

import json
from typing import Any

from flask import Response

from ..config.secrets import redact
from ..monitoring.status import jsonable
from ..text import plain

CONTENT_TYPE = "application/json"
NDJSON = "application/x-ndjson"
SERVER = "daemonkit"


def envelope(message: Any, result: bool, **more: Any) -> bytes:
    """The body of an answer, without secrets; what JSON can't hold becomes text."""
    shown = jsonable({"message": message, "result": result, **more}, redact)
    return json.dumps(shown).encode() + b"\n"


def answer(code: int, body: bytes) -> Response:
    """An answer with such a body."""
    return Response(body, code, content_type=CONTENT_TYPE)


def plain_answer(text: str, code: int) -> Response:
    """An answer in plain text, without secrets."""
    return Response(redact(plain(text)), code, mimetype="text/plain")


RECEIVED = envelope("Event received", True)


def batch_received(count: int) -> bytes:
    """The body of the answer to a batch of `count` events."""
    text = f"{count} event{'' if count == 1 else 's'} received"
    return envelope(text, True, accepted=count)
