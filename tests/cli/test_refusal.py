from __future__ import annotations

import json

import pytest

from daemonkit.cli.client import Answer, Client, parse_address
from daemonkit.cli.refusal import refusal

TOKEN = "; give a token by --config, --token-file or $DAEMONKIT_TOKEN"
OTHER = "; is it another program, an older daemonkit, or is there an `admin` address?"


@pytest.mark.parametrize(
    ("status", "message", "line"),
    [
        (401, "This needs a token", "401 This needs a token" + TOKEN),
        (403, "The token shop may not read", "403 The token shop may not read"),
        (404, "Not found: /status", "404 Not found: /status" + OTHER),
        (404, "There is no slave 'x'", "404 There is no slave 'x'"),
        (404, None, "404 Reason" + OTHER),
        (409, "two\nlines", "409 two lines"),
        (500, "x" * 501, "500 " + "x" * 496 + "..."),
    ],
)
def test_it_says_what_was_answered_and_what_to_do(
    status: int, message: str | None, line: str
) -> None:
    body = b"" if message is None else json.dumps({"message": message}).encode()
    client = Client(parse_address("http://a:1"))

    assert refusal(client, Answer(status, "Reason", {}, body)) == f"http://a:1 answered {line}"
