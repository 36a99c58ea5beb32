from __future__ import annotations

import os

import pytest

from daemonkit import StartError
from daemonkit.system.systemd import NotifySocket, take_sockets, watchdog_seconds


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "9" * 19}, 9999999999999.999999),
        ({"WATCHDOG_USEC": "9" * 20}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
    ],
)
def test_the_watchdog_s_time_is_read_from_the_environment(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_seconds(environ) == seconds


@pytest.mark.parametrize(
    "address", ["/" + "x" * 500, "@" + "x" * 500, "/a\0b", "@nobody", "/nowhere"]
)
def test_an_undeliverable_message_is_neither_raised_nor_retried(address: str) -> None:
    notify = NotifySocket({"NOTIFY_SOCKET": address})

    assert notify.is_open
    assert notify.send("READY=1") is None
    notify.close()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}])
def test_without_an_address_nothing_is_opened(environ: dict[str, str]) -> None:
    notify = NotifySocket(environ)

    assert not notify.is_open
    assert notify.send("READY=1") is None


def test_without_a_descriptor_the_notify_socket_stays_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("daemonkit.system.systemd.socket.socket", refuse)

    assert not NotifySocket({"NOTIFY_SOCKET": "/run/notify"}).is_open


@pytest.mark.parametrize("count", ["", "x", "-1", "9999999"])
def test_a_wrong_number_of_descriptors_is_named(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    with pytest.raises(StartError) as caught:
        take_sockets(environ)

    assert str(caught.value) == (
        f"cannot start: LISTEN_FDS is {count!r}, not a number of descriptors"
    )
    assert environ == {}


def test_without_passed_sockets_none_are_taken() -> None:
    assert take_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}) == []
