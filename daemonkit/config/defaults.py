"""The table of settings: the section `master` of the configuration.

YAML checks, command-line help and the configuration page of the docs are derived from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ..text import describe


@dataclass(frozen=True)
class Kind:
    """A value's form: `text` describes it ("an int 0..65535"), `convert` returns it or raises
    ValueError or TypeError."""

    text: str
    convert: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        try:
            return self.convert(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"must be {self.text}, not {describe(value)}") from None


def whole(low: int, high: int | None = None) -> Kind:
    """A whole number, at least `low` and at most `high`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError
        if value < low or (high is not None and value > high):
            raise ValueError
        return value

    return Kind(f"an int {low}..{high}" if high is not None else f"an int >= {low}", convert)


def seconds(low: float, high: float) -> Kind:
    """A number of seconds, at least `low` and at most `high`."""

    def convert(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a number of seconds {low:g}..{high:g}", convert)


def one_of(*names: str, fold: Callable[[str], str]) -> Kind:
    """One of some names, whatever its case."""

    def convert(value: Any) -> str:
        if not isinstance(value, str) or fold(value) not in names:
            raise ValueError
        return fold(value)

    return Kind("one of " + ", ".join(names), convert)


def or_none(kind: Kind) -> Kind:
    """The same, or null."""
    return Kind(f"{kind.text} or null", lambda v: None if v is None else kind.convert(v))


def _yes_or_no(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value or "\0" in value:
        raise ValueError
    return value


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return [_text(item) for item in value]


def _url(value: Any) -> str:
    parts = urlsplit(_text(value))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError
    return _text(value)


TEXT = Kind("a string, not empty", _text)
URL = Kind("an http or https URL", _url)
TEXTS = Kind("a list of strings", _texts)
YES_OR_NO = Kind("true or false", _yes_or_no)
TEXT_OR_NONE = or_none(Kind("a string", _text))


@dataclass(frozen=True)
class Setting:
    """One row: `option` says that the command line has a short form of it."""

    name: str
    default: Any
    check: Kind
    help: str
    option: bool = False


SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        Setting(
            "host",
            "::",
            TEXT,
            "Address to listen on, for HTTP and UDP. `::` means every address, of both families.",
            option=True,
        ),
        Setting(
            "port",
            5151,
            whole(0, 65535),
            "Port to listen on, one number for HTTP (TCP) and UDP. 0 picks a free one.",
            option=True,
        ),
        Setting(
            "hidden_opts",
            [],
            TEXTS,
            "Options shown as `*** HIDDEN ***` in `/status`: names, dotted paths or globs.",
        ),
        Setting(
            "queue",
            None,
            TEXT_OR_NONE,
            "File that keeps the events until they are handled. By default they are kept in "
            "memory, and lost with the process.",
        ),
        Setting("queue_size", 100_000, whole(1), "How many events may wait in the queue."),
        Setting(
            "queue_disk",
            1024 * 1024 * 1024,
            whole(1024 * 1024),
            "Largest size of the file `queue`, in bytes, dead letters included; beside it stand "
            "some 10 MiB more.",
        ),
        Setting(
            "ack_batch",
            100,
            whole(1, 10_000),
            "How many handled events are removed from the file `queue` together. Some more than "
            "that may be handled twice after a crash.",
        ),
        Setting(
            "max_request_size",
            10 * 1024 * 1024,
            whole(1),
            "Largest body of an HTTP request, in bytes; a larger one is answered 413.",
        ),
        Setting(
            "request_timeout",
            30,
            seconds(0.1, 86_400),
            "Seconds that a client may take to send a whole request; then it is answered 408.",
        ),
        Setting(
            "connection_limit",
            1000,
            whole(1),
            "HTTP connections at a time. To let in more, idle ones are closed, the oldest first.",
        ),
        Setting(
            "fast_events",
            True,
            YES_OR_NO,
            "Answer `POST /events` without Flask where that makes no difference but speed.",
        ),
        Setting(
            "udp_buffer",
            None,
            or_none(whole(1, 2**30 - 1)),
            "Bytes the kernel keeps of datagrams that wait to be read. By default 4 MiB, or as "
            "much of that as the system allows.",
        ),
        Setting(
            "switch_interval",
            0.0001,
            seconds(0.00001, 1),
            "Seconds that a thread may compute in Python while another one waits for its turn; see "
            "`sys.setswitchinterval`. Python's own 0.005 s keep a daemon whose slave computes from "
            "answering.",
        ),
        Setting(
            "http_threads",
            4,
            whole(1, 1000),
            "Threads that answer HTTP requests. Slow routes hold them; `/ping` and `/ready` have "
            "one in reserve each.",
        ),
        Setting(
            "shutdown_timeout",
            25,
            seconds(0.1, 86_400),
            "Seconds that stopping may take; then the exit status is 4. The default stays below "
            "the 30 s after which Kubernetes kills.",
        ),
        Setting(
            "drain_delay",
            0,
            seconds(0, 86_400),
            "Seconds of `shutdown_timeout` in which events are still taken although `/ready` says "
            "no, so that senders and load balancers can turn away first.",
        ),
        Setting(
            "log_level",
            "DEBUG",
            one_of("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", fold=str.upper),
            "Least severe level that is logged.",
            option=True,
        ),
        Setting(
            "log_file",
            None,
            TEXT_OR_NONE,
            "File to log to instead of stdout; reopened when it is moved or removed.",
        ),
        Setting(
            "log_format",
            "text",
            one_of("text", "json", fold=str.lower),
            "`text` for columns, `json` for one JSON object a line.",
        ),
        Setting(
            "juggler_url",
            "http://localhost:31579/events",
            URL,
            "Where `send_event_to_juggler` posts to.",
        ),
        Setting(
            "juggler_timeout",
            5,
            seconds(0.1, 3600),
            "Seconds to wait for Juggler to connect, and then to answer, before trying again.",
        ),
    )
}
