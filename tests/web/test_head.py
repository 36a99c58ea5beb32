from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daemonkit.web.head import MAX_FIELDS, Head, Refused, parse_head

TARGETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
BLANKS = st.text(" \t", max_size=2)
TOKEN = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def head_of(target: str, *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {target} HTTP/{version}", "Host: x", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def refusal(head: bytes) -> tuple[int, str]:
    with pytest.raises(Refused) as raised:
        parse_head(head)
    return raised.value.error.code, str(raised.value)


def outcome(head: bytes) -> Head | int:
    """The parsed head, or the status of its refusal."""
    try:
        return parse_head(head)
    except Refused as refused:
        code: int = refused.error.code
        return code


def test_a_head_is_parsed_as_wsgi_wants_it() -> None:
    head = head_of("/a%20b%2Fc?d=%20e#f", "X-Y: 1", "x-y:2", "X_Y: 3", "Content-Length: 007")

    assert parse_head(head) == Head(
        command="GET",
        target="/a%20b%2Fc?d=%20e#f",
        path="/a b/c",
        query="d=%20e",
        version="1.1",
        fields={"HOST": "x", "X_Y": "1, 2", "CONTENT_LENGTH": "7"},
        length=7,
    )


def test_the_host_of_an_absolute_target_replaces_the_field() -> None:
    parsed = parse_head(head_of("http://user:word@y:80/a?b"))

    assert (parsed.fields["HOST"], parsed.path, parsed.query) == ("y:80", "/a", "b")


def test_a_chunked_body_has_no_length_and_its_coding_is_not_passed_on() -> None:
    parsed = parse_head(head_of("/", "Transfer-Encoding: Chunked"))

    assert (parsed.length, parsed.fields) == (None, {"HOST": "x"})


@pytest.mark.parametrize(
    ("connection", "version", "expected"),
    [
        (None, "1.1", False),
        (None, "1.0", True),
        ("keep-alive", "1.0", False),
        ("Keep-Alive, x", "1.0", False),
        ("keep-alive, close", "1.0", True),
        ("x, Close", "1.1", True),
        ("closed", "1.1", False),
        ("upgrade", "1.1", False),
    ],
)
def test_whether_the_connection_is_closed(
    connection: str | None, version: str, expected: bool
) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]

    assert parse_head(head_of("/", *fields, version=version)).closes is expected


def test_a_refusal_says_what_is_wrong_and_has_a_status() -> None:
    assert refusal(head_of("*")) == (400, "the target * is for OPTIONS")
    assert refusal(head_of("x:1", method="CONNECT")) == (501, "CONNECT is for proxies")
    assert refusal(head_of("/", version="2.0")) == (
        505,
        "this server speaks HTTP/1.1, not HTTP/2.0",
    )
    assert refusal(head_of("/", *["X: y"] * MAX_FIELDS)) == (431, "more than 1000 header fields")
    assert refusal(head_of("/", "Content-Type: a", "content-type: b")) == (
        400,
        "the field content-type is there twice",
    )


@given(TARGETS)
def test_only_a_path_and_an_http_url_are_targets(target: str) -> None:
    is_path = target.startswith("/")
    is_url = target.lower().startswith(("http://", "https://"))
    parsed = outcome(head_of(target))

    if isinstance(parsed, Head):
        assert is_path or is_url
        assert parsed.path.startswith("/")
        assert parsed.target == target
    else:
        assert (parsed, is_path) == (400, False)


@given(
    st.sampled_from(["http", "HTTPS"]),
    st.text("abc019.-", min_size=1, max_size=9),
    st.sampled_from(["", ":", ":0", ":65535"]),
)
def test_the_path_of_a_url_is_the_same_as_without_the_host(
    scheme: str, name: str, port: str
) -> None:
    path, host = "/a/b?c=d#e", name + port
    with_host, without = (
        parse_head(head_of(target)) for target in (f"{scheme}://{host}{path}", path)
    )

    assert (with_host.path, with_host.query) == (without.path, without.query)
    assert with_host.fields["HOST"] == host


@given(st.binary())
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    parsed = outcome(data + b"\r\n\r\n")

    assert parsed in (400, 431, 501, 505) or isinstance(parsed, Head)


@given(
    st.dictionaries(
        st.text(TOKEN.replace("_", ""), min_size=1).map(str.upper),
        st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f")),
        max_size=5,
    ),
    st.data(),
)
def test_fields_are_read_whatever_their_names_and_values(fields: dict[str, str], data: Any) -> None:
    reserved = {"HOST", "CONTENT-LENGTH", "TRANSFER-ENCODING", "CONNECTION"}
    assume(reserved.isdisjoint(fields))
    fields = {
        name: "".join(c for c in text if not 0x7E < ord(c) < 0x80) for name, text in fields.items()
    }
    padded = [f"{name}:{data.draw(BLANKS)}{text}" for name, text in fields.items()]
    expected = {name.replace("-", "_"): text.strip(" \t") for name, text in fields.items()}

    assert parse_head(head_of("/", *padded)).fields == {"HOST": "x", **expected}


SPACES = [b" " * 200_000, b"\t" * 200_000, b" \t" * 100_000, b"a" + b" " * 200_000 + b"b"]


@pytest.mark.parametrize("spaces", SPACES, ids=["spaces", "tabs", "both", "between"])
def test_a_value_with_many_spaces_takes_no_time(spaces: bytes) -> None:
    """A pattern that backtracks would take hours."""
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX:%s\r\n\r\n"
    assert parse_head(head % spaces).fields["X"] == spaces.strip(b" \t").decode()
    assert refusal(head % (spaces + b"\x01"))[0] == 400
