"""Loaded by schemathesis, by its name in SCHEMATHESIS_HOOKS: how bodies are written, and which token is
sent."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from typing import Any

import schemathesis

ALL, SENDER, READER = (os.environ[name] for name in ("ALL", "SENDER", "READER"))
"""Tokens that may do all, only send, and only read."""
ANSWERS = os.environ["ANSWERS"]
"""The file to which each answer's method, path and status are appended."""
_numbers: dict[str, Iterator[int]] = defaultdict(count)


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


@schemathesis.auth(refresh_interval=None)
class Tokens:
    """Sends every fourth valid request to a path with a token that doesn't grant the right."""

    def get(self, case: schemathesis.Case, context: schemathesis.AuthContext) -> str:
        # An invalid one must be refused because it is invalid.
        is_valid = case.meta is None or case.meta.generation.mode.is_positive
        if not is_valid or next(_numbers[case.operation.path]) % 4 != 1:
            return ALL
        return SENDER if case.operation.path.startswith("/status") else READER

    def set(self, case: schemathesis.Case, data: str, context: schemathesis.AuthContext) -> None:
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response
) -> None:
    with open(ANSWERS, "a", encoding="ascii") as file:
        file.write(f"{case.method} {case.operation.path} {response.status_code}\n")
