"""Loaded by schemathesis, by its name in SCHEMATHESIS_HOOKS: how bodies are written, and which token is
sent."""

from __future__ import annotations

import gzip
import json
import os
from itertools import count
from typing import Any

import schemathesis

SENDER, READER = os.environ["SENDER"], os.environ["READER"]
"""Tokens that may only send, and only read."""
ANSWERS = os.environ["ANSWERS"]
"""The file to which each answer's method, path and status are appended."""
_numbers = count()


def _coding(headers: Any) -> str:
    return str((headers or {}).get("Content-Encoding", "identity"))


@schemathesis.serializer("application/json")
def as_json(context: schemathesis.SerializationContext, value: Any) -> bytes:
    # Bytes stand for a body that isn't JSON.
    return _coded(context, value if isinstance(value, bytes) else json.dumps(value).encode())


@schemathesis.serializer("application/x-ndjson")
def as_lines(context: schemathesis.SerializationContext, value: Any) -> bytes:
    if isinstance(value, bytes):
        return _coded(context, value)
    # What isn't a list would be a valid line.
    lines = value if isinstance(value, list) else []
    return _coded(context, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


def _coded(context: schemathesis.SerializationContext, data: bytes) -> bytes:
    is_zipped = _coding(context.case.headers) in ("gzip", "x-gzip")
    return gzip.compress(data) if is_zipped else data


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Leave out what JSON Schema and HTTP take for something else than the document means.

    A number like 1.0 is an integer to JSON Schema, and not the number of a dead letter. A list of
    codings that is empty means `identity` (RFC 9110 section 5.6.1).
    """
    id = case.body.get("id") if isinstance(case.body, dict) else None
    return not isinstance(id, float) and bool(_coding(case.headers).strip(" \t,"))


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]
) -> None:
    """Send every fourth request with a token that doesn't grant the right."""
    is_documented = case.method == case.operation.method.upper()
    if is_documented and "Authorization" in case.headers and next(_numbers) % 4 == 3:
        token = SENDER if case.operation.path == "/status" else READER
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response
) -> None:
    with open(ANSWERS, "a", encoding="ascii") as file:
        file.write(f"{case.method} {case.operation.path} {response.status_code}\n")
