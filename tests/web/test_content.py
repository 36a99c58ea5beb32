from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from daemonkit import Daemon
from daemonkit.testing import Client, running
from daemonkit.web.content import MAX_MEMBERS, UnsupportedCoding, decoded

LIMIT = 100_000
ZIPPED = gzip.compress(b"{}", mtime=0)


@given(st.lists(st.binary(), min_size=1, max_size=5))
def test_members_are_joined(parts: list[bytes]) -> None:
    data = b"".join(map(gzip.compress, parts))

    assert decoded(data, "gzip", LIMIT) == b"".join(parts)


@pytest.mark.parametrize("coding", ["", "identity", ",", "identity, identity"])
def test_without_a_coding_the_body_is_left_as_it_is(coding: str) -> None:
    assert decoded(b"{}", coding, 1) == b"{}"


@pytest.mark.parametrize("coding", ["gzip", "GZip", "x-gzip", "identity, gzip", "gzip,"])
def test_gzip_has_several_names(coding: str) -> None:
    assert decoded(ZIPPED, coding, LIMIT) == b"{}"


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip", "gzip;q=1", "chunked"])
def test_any_other_coding_is_refused(coding: str) -> None:
    with pytest.raises(UnsupportedCoding) as raised:
        decoded(b"{}", coding, LIMIT)

    assert ("Accept-Encoding", "gzip") in raised.value.get_headers()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        ZIPPED[:-1],
        ZIPPED + b"x",
        ZIPPED + ZIPPED[:5],
        zlib.compress(b"{}"),
        ZIPPED[:-8] + b"\0" * 8,
        gzip.compress(b"", mtime=0) * (MAX_MEMBERS + 1),
    ],
)
def test_what_is_not_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        decoded(data, "gzip", LIMIT)


def test_the_limit_is_that_of_the_decoded_body() -> None:
    assert len(decoded(gzip.compress(bytes(LIMIT)), "gzip", LIMIT)) == LIMIT
    for data in (gzip.compress(bytes(LIMIT + 1)), gzip.compress(bytes(LIMIT // 2 + 1)) * 2):
        with pytest.raises(RequestEntityTooLarge):
            decoded(data, "gzip", LIMIT)


@pytest.fixture
def events() -> list[Any]:
    return []


@pytest.fixture
def client(events: list[Any]) -> Iterator[Client]:
    app = Daemon("app")
    app.add_event_handler(events.append)
    limits = {"max_event_size": 1000, "max_request_size": 10_000}
    with running(app, {"master": limits}) as client:
        yield client


def post(client: Client, body: bytes, **headers: str) -> tuple[int, str]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post("/events", data=body, headers=fields)
    return answer.status_code, answer.json()["message"]


def test_zipped_events_are_accepted_and_limits_apply_to_them(
    client: Client, events: list[Any]
) -> None:
    def zipped(body: bytes, **headers: str) -> tuple[int, str]:
        return post(client, gzip.compress(body), Content_Encoding="gzip", **headers)

    assert zipped(b'{"a": 1}') == (200, "Event received")
    assert zipped(b"1\n2\n", Content_Type="application/x-ndjson") == (200, "2 events received")
    client.wait_until(lambda: len(events) == 3)
    assert events == [{"a": 1}, 1, 2]
    assert zipped(b"nope")[0] == 400
    assert zipped(json.dumps("x" * 999).encode()) == (
        413,
        "an event of 1001 bytes is over max_event_size (1000 bytes)",
    )
    assert zipped(b" " * 10_001) == (
        413,
        "The decoded body is over the limit of 10000 bytes (max_request_size)",
    )


def test_what_cannot_be_unzipped_is_refused(client: Client) -> None:
    answer = client.post("/events", data=b"{}", headers={"Content-Encoding": "br"})

    assert (answer.status_code, answer.headers["Accept-Encoding"]) == (415, "gzip")
    assert answer.json() == {
        "message": "Content-Encoding br is not supported; use gzip",
        "result": False,
    }
    assert post(client, b"{}", Content_Encoding="gzip") == (
        400,
        "The body is not gzip: Error -3 while decompressing data: incorrect header check",
    )


def test_an_event_over_the_limit_is_refused_alone_and_in_a_batch(client: Client) -> None:
    def event(size: int) -> bytes:
        return b'"%s"' % (b"x" * (size - 2))

    assert post(client, event(1000)) == (200, "Event received")
    assert post(client, event(1001))[0] == 413
    lines, ndjson = b"1\n%s\n2\n", {"Content_Type": "application/x-ndjson"}
    assert post(client, lines % event(1000), **ndjson) == (200, "3 events received")
    assert post(client, lines % event(1001), **ndjson) == (
        413,
        "line 2: an event of 1001 bytes is over max_event_size (1000 bytes)",
    )
    assert client.status()["events"]["received"] == 4
