"""The table of settings: the section `master` of the configuration.

The fields of `Settings` are the table. YAML checks, command-line help and the configuration page
of the docs are derived from it.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

from .access import ADDRESS_OR_NONE, HOST, HOSTS, INTAKE, NETWORKS, PROXIES, TOKENS
from .alerts import ALERTS
from .checks import (
    BOOLEAN,
    CONFIRM,
    FILE,
    LEVELS,
    QUEUE,
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


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """The settings in force; an attribute's type is what its check returns."""

    host: str = _setting(
        "::", HOST, "Listening address; `::` is every IPv4 and IPv6 one.", option=True
    )
    port: int = _setting(
        5151, whole(0, 65535), "Port for HTTP and UDP; 0 picks a free one.", option=True
    )
    intake: list[str] = _setting(  # noqa: RUF009
        ["http", "udp"], INTAKE, "Ways in which events may come."
    )
    admin: str | None = _setting(
        None,
        ADDRESS_OR_NONE,
        "Address for all but `/events` and your routes; see [access](access.md).",
    )
    tokens: dict[str, Any] = _setting(  # noqa: RUF009
        {}, TOKENS, "Who may do what; see [access control](access.md)."
    )
    allow_from: list[str] = _setting(  # noqa: RUF009
        [], NETWORKS, "Networks of clients; others get 403, their datagrams are dropped."
    )
    trusted_proxies: list[str] = _setting(  # noqa: RUF009
        [], PROXIES, "Proxies whose `X-Forwarded-*` fields are believed."
    )
    allowed_hosts: list[str] = _setting(  # noqa: RUF009
        [], HOSTS, "Names by which clients may call the daemon; any by default."
    )
    page: bool = _setting(True, BOOLEAN, "Whether there is a status page at `/`, for browsers.")
    hidden_opts: list[str] = _setting(  # noqa: RUF009
        [], TEXTS, "Options that `/status` hides: names, dotted paths or globs."
    )
    queue: str | None = _setting(
        None,
        or_none(QUEUE),
        "File or `redis://` address that keeps events until handled; else memory does.",
    )
    queue_size: int = _setting(100_000, whole(1), "How many events may wait in the queue.")
    queue_memory: int = _setting(
        256 * 2**20,
        size(2**20),
        "Memory that waiting events may use; when exceeded, 503.",
    )
    max_event_size: int = _setting(
        2**20, size(1), "Largest event, as JSON text; a larger one gets 413."
    )
    queue_max_disk: int = _setting(
        2**30, size(2**20), "Largest size of the file `queue`, dead letters included."
    )
    ack_batch: int = _setting(
        100, whole(1, 10_000), "How many handled events are removed from `queue` together."
    )
    node_timeout: float = _setting(
        10,
        duration(1, 3600),
        "After how long without heartbeats a daemon that shares `queue` is dead.",
    )
    confirm: dict[str, Any] = _setting(  # noqa: RUF009
        {}, CONFIRM, "Who must have an event of a shared `queue`; see [scale](scale.md)."
    )
    dead_letters: int = _setting(10_000, whole(1), "How many dead letters a shared `queue` keeps.")
    max_request_size: int = _setting(
        10 * 2**20, size(1), "Largest body of an HTTP request; a larger one gets 413."
    )
    request_timeout: float = _setting(
        30, duration(0.1, 86_400), "How long a client may take to send a request; then 408."
    )
    connection_limit: int = _setting(
        1000, whole(1), "HTTP connections at a time; at the limit, idle ones are closed."
    )
    fast_events: bool = _setting(
        True, BOOLEAN, "Answer `POST /events` without Flask where only speed differs."
    )
    udp_receive_buffer: int | None = _setting(
        None,
        or_none(size(1, 2**30 - 1)),
        "Kernel buffer for unread datagrams; by default up to 4 MiB.",
    )
    switch_interval: float = _setting(
        0.0001,
        duration(0.00001, 1),
        "How long one thread may keep Python's interpreter from the others.",
    )
    http_threads: int = _setting(
        4, whole(1, 1000), "Threads that answer HTTP requests; probes have theirs in reserve."
    )
    shutdown_timeout: float = _setting(
        25, duration(0.1, 86_400), "How long stopping may take; then the exit status is 4."
    )
    max_restarts: int | None = _setting(
        None,
        or_none(whole(0)),
        "Restarts of all slaves together within `within`; after more, the daemon stops.",
    )
    within: float = _setting(
        60, duration(0.1, 86_400), "The period, in seconds, to which `max_restarts` applies."
    )
    drain_delay: float = _setting(
        0,
        duration(0, 86_400),
        "Part of `shutdown_timeout` that accepts events although `/ready` fails.",
    )
    log_level: str = _setting(
        "DEBUG",
        one_of(*LEVELS, fold=str.upper),
        "Least severe level that is logged.",
        option=True,
    )
    log_file: str | None = _setting(
        None, or_none(FILE), "File to log to instead of stdout; reopened after rotation."
    )
    log_format: str = _setting(
        "text",
        one_of("text", "json", fold=str.lower),
        "`text` for columns, `json` for one JSON object per line.",
    )
    access_log: bool = _setting(False, BOOLEAN, "Log each HTTP request but `/ping` and `/ready`.")
    juggler_url: str = _setting(
        "http://localhost:31579/events", URL, "Where `send_event_to_juggler` posts to."
    )
    juggler_timeout: float = _setting(
        5, duration(0.1, 3600), "How long to wait for Juggler's connection, and for its reply."
    )
    alerts: dict[str, Any] = _setting(  # noqa: RUF009
        {}, ALERTS, "Where alerts are sent, and what raises them; see [alerts](alerts.md)."
    )
    alert_refresh: float = _setting(
        60, duration(0.1, 86_400), "How often the alert of a service that isn't OK is repeated."
    )
    alert_hold: float = _setting(
        10, duration(0, 86_400), "How long a better status must last before it is sent."
    )


class Setting(NamedTuple):
    """A row of the table."""

    name: str
    default: Any
    check: Check[Any]
    help: str
    option: bool


SETTINGS = {row.name: Setting(row.name, **row.metadata) for row in fields(Settings)}
