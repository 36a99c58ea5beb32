from __future__ import annotations

from pathlib import Path

import pytest

from daemonkit import StartError
from daemonkit.events.shared.address import parse


@pytest.mark.parametrize(
    ("text", "options", "shown"),
    [
        ("redis://host", {"host": "host"}, "redis://host"),
        ("redis://host:7/3", {"host": "host", "port": 7, "db": 3}, "redis://host:7/3"),
        ("redis://[::1]:7/0", {"host": "::1", "port": 7, "db": 0}, "redis://[::1]:7/0"),
        (
            "redis://me:p%40ss@host/0",
            {"host": "host", "db": 0, "username": "me", "password": "p@ss"},
            "redis://host/0",
        ),
        ("redis://:only@host/0", {"host": "host", "db": 0, "password": "only"}, "redis://host/0"),
    ],
)
def test_an_address_is_read(text: str, options: dict[str, object], shown: str) -> None:
    address = parse(text)

    assert (address.options, address.shown) == (options, shown)
    assert (address.name, address.sentinels) == (None, ())


def test_tls_is_asked_for_by_the_scheme(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    text = f"rediss://host/0?ssl_ca_certs={authority}&ssl_check_hostname=false"
    with pytest.raises(StartError, match=f"ssl_ca_certs names {authority}, which doesn't exist"):
        parse(text)
    authority.touch()
    address = parse(text)

    assert address.options["connection_class"].__name__ == "SSLConnection"
    assert address.options["ssl_ca_certs"] == str(authority)
    assert address.shown == "rediss://host/0"


def test_the_name_of_the_queue_may_be_given() -> None:
    assert parse("redis://host/0?name=crawler%202").name == "crawler 2"


def test_sentinels_are_asked_for_the_primary() -> None:
    address = parse(
        "redis+sentinel://me:secret@one,two:7,[::1]:8/2?service=main&sentinel_password=other"
    )

    assert address.sentinels == (("one", 26379), ("two", 7), ("::1", 8))
    assert (address.service, address.sentinel_options) == ("main", {"password": "other"})
    assert address.options["password"] == "secret"
    assert address.options["db"] == 2
    assert address.shown == "redis+sentinel://one,two:7,[::1]:8/2"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("redis:///0", "it has no host"),
        ("redis://host/zero", "after the host comes the number of a database"),
        ("redis://host:99999/0", "Port out of range"),
        ("redis://host:port/0", "could not be cast to integer"),
        ("redis://host/0?timeout=5", "unknown parameter 'timeout'"),
        ("redis://host/0?retry", "bad query field"),
        ("redis+sentinel://one/0", r"\?service=NAME must say which primary"),
        ("redis+sentinel://one,,two/0?service=x", "a sentinel has no host"),
        ("unix:///tmp/x", "the scheme 'unix' is none of"),
        ("redis://me:se/cret@host/0", "malformed"),
    ],
)
def test_a_malformed_address_is_named_without_its_password(text: str, reason: str) -> None:
    with pytest.raises(StartError, match=reason) as raised:
        parse(text.replace("//", "//user:hunter2@") if "@" not in text else text)

    assert raised.value.exit_status == 3
    assert "hunter2" not in str(raised.value)
    assert "cret" not in str(raised.value)
    assert "it must be like redis://host:6379/0" in str(raised.value)
