"""The table of settings: the section `master` of the configuration.

The fields of `Settings` are the table. YAML checks, command-line help and the configuration page
of the docs are derived from it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from .checks import (
    BOOLEAN,
    PATH_OR_NONE,
    TEXT,
    TEXTS,
    URL,
    Check,
    duration,
    one_of,
    or_none,
    size,
    whole,
)

T = TypeVar("T")


def _setting(default: T, check: Check[T], help: str, *, option: bool = False) -> T:
    """A field of `Settings`; option: the command line has a short form of it."""
    row = {"default": default, "check": check, "help": help, "option": option}
    return field(default_factory=lambda: copy.copy(default), metadata=row)


@dataclass(frozen=True)
class Settings:
    """The settings in force; an attribute's type is what its check returns."""

    host: str = _setting(
        "::",
        TEXT,
        "Address to listen on, for HTTP and UDP. `::` means every address, of both families.",
        option=True,
    )
    port: int = _setting(
        5151,
        whole(0, 65535),
        "Port to listen on, one number for HTTP (TCP) and UDP. 0 picks a free one.",
        option=True,
    )
    hidden_opts: list[str] = _setting(  # noqa: RUF009
        [],
        TEXTS,
        "Options shown as `*** HIDDEN ***` in `/status`: names, dotted paths or globs.",
    )
    queue: str | None = _setting(
        None,
        PATH_OR_NONE,
        "File that keeps the events until they are handled. By default they are kept in "
        "memory, and lost with the process.",
    )
    queue_size: int = _setting(100_000, whole(1), "How many events may wait in the queue.")
    queue_disk: int = _setting(
        1024 * 1024 * 1024,
        size(1024 * 1024),
        "Largest size of the file `queue`, dead letters included; its companion files take "
        "some 10 MiB more.",
    )
    ack_batch: int = _setting(
        100,
        whole(1, 10_000),
        "How many handled events are removed from the file `queue` together. Slightly more than "
        "that may be handled twice after a crash.",
    )
    max_request_size: int = _setting(
        10 * 1024 * 1024,
        size(1),
        "Largest body of an HTTP request; a larger one is answered 413.",
    )
    request_timeout: float = _setting(
        30,
        duration(0.1, 86_400),
        "How long a client may take to send a whole request; then it is answered 408.",
    )
    connection_limit: int = _setting(
        1000,
        whole(1),
        "HTTP connections at a time. At the limit, the oldest idle one is closed for a new one.",
    )
    fast_events: bool = _setting(
        True,
        BOOLEAN,
        "Answer `POST /events` without Flask where that makes no difference but speed.",
    )
    udp_buffer: int | None = _setting(
        None,
        or_none(size(1, 2**30 - 1)),
        "Kernel buffer for datagrams not yet read. By default 4 MiB, or as much of that as the "
        "system allows.",
    )
    switch_interval: float = _setting(
        0.0001,
        duration(0.00001, 1),
        "How long a thread may run Python code while another one waits for the interpreter; see "
        "`sys.setswitchinterval`. With Python's own 5 ms, a slave that computes delays answers.",
    )
    http_threads: int = _setting(
        4,
        whole(1, 1000),
        "Threads that answer HTTP requests. Slow routes occupy them; `/ping` and `/ready` have "
        "one in reserve each.",
    )
    shutdown_timeout: float = _setting(
        25,
        duration(0.1, 86_400),
        "How long stopping may take; then the exit status is 4. The default is below the 30 s "
        "after which Kubernetes kills a container.",
    )
    drain_delay: float = _setting(
        0,
        duration(0, 86_400),
        "The part of `shutdown_timeout` in which events are still accepted although `/ready` says "
        "no, so that senders and load balancers can switch to another daemon first.",
    )
    log_level: str = _setting(
        "DEBUG",
        one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", fold=str.upper),
        "Least severe level that is logged.",
        option=True,
    )
    log_file: str | None = _setting(
        None,
        PATH_OR_NONE,
        "File to log to instead of stdout; reopened when it is moved or removed.",
    )
    log_format: str = _setting(
        "text",
        one_of("text", "json", fold=str.lower),
        "`text` for columns, `json` for one JSON object per line.",
    )
    juggler_url: str = _setting(
        "http://localhost:31579/events",
        URL,
        "Where `send_event_to_juggler` posts to.",
    )
    juggler_timeout: float = _setting(
        5,
        duration(0.1, 3600),
        "How long to wait for Juggler to connect, and then to answer, before trying again.",
    )


@dataclass(frozen=True)
class Setting:
    """A row of the table."""

    name: str
    default: Any
    check: Check[Any]
    help: str
    option: bool


SETTINGS = {row.name: Setting(row.name, **row.metadata) for row in fields(Settings)}
