"""The access log: what was answered, and to whom."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from ..events.intake import Refusals
from ..runtime.clock import monotonic
from ..system.log import log_safely
from ..text import shorten
from .access import Access, Client
from .fast_lane import HEAD_CACHE_SIZE, LINE, Connection, FastLane, Head, Taken, read_head
from .pool import PROBES

LONGEST_FIELD = 1000
"""Characters that are logged of a request's target, of its referrer and of its user agent."""
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_EVENT = LINE.decode().rstrip()
_REFERER, _AGENT = rb"(?i)\nreferer:([^\r]*)", rb"(?i)\nuser-agent:([^\r]*)"


class Answered(NamedTuple):
    """An answered request.

    request: its request line; size: bytes in the answer's body; sender: the name of its token;
    seconds: how long it took.
    """

    client: Client
    request: str
    status: str
    size: int
    referer: str
    agent: str
    sender: str | None
    seconds: float


class AccessLog:
    """Logs requests in the combined format (Apache's mod_log_config), with two fields more.

    logger: the daemon's; access: says who is behind a proxy, and whose a token is.
    """

    def __init__(self, logger: logging.Logger, access: Access) -> None:
        self._logger = logger.getChild("access")
        self._access = access

    def answered(self, task: Any) -> None:
        """Log a request that one of the pool's threads has answered, unless it was a probe."""
        channel, requests = task.channel, task.channel.requests
        # After a route has raised, the task has an empty request of waitress's.
        request = requests[0] if requests else task.request
        if request.path in PROBES:
            return
        fields, peer, access = request.headers, channel.other_end, self._access
        forwarded_for = fields.get("X_FORWARDED_FOR", "") if access.trusts(peer) else ""
        target = _without_query(request.request_uri)
        self.write(
            Answered(
                access.client(peer, forwarded_for),
                f"{request.command} {target} HTTP/{request.version}" if request.command else "",
                task.status[:3],
                task.body_size,
                _without_query(fields.get("REFERER", "")),
                fields.get("USER_AGENT", ""),
                access.sender(fields.get("AUTHORIZATION", ""))[1],
                monotonic() - request.began,
            )
        )

    def write(self, answered: Answered) -> None:
        """Log a request."""
        if self._logger.isEnabledFor(logging.INFO):
            log_safely(self._logger, logging.INFO, "%s", _line(answered))


def _line(answered: Answered) -> str:
    client, request, status, size, referer, agent, sender, seconds = answered
    address = client.shown if client.address is None else client.address or "unknown"
    received = _timestamp(int(time.time() - seconds))
    return (
        f'{address} - - [{received}] "{_quoted(request)}" {status} {size or "-"} '
        f'"{_quoted(referer)}" "{_quoted(agent)}" sender={sender or "-"} {seconds:.6f}'
    )


@lru_cache(4)
def _timestamp(seconds: int) -> str:
    moment = time.localtime(seconds)
    # In English, whatever the locale.
    return time.strftime(f"%d/{_MONTHS[moment.tm_mon - 1]}/%Y:%H:%M:%S %z", moment)


def _quoted(text: str) -> str:
    """A field between quotation marks; control characters are the log's affair."""
    escaped = shorten(text, LONGEST_FIELD).replace("\\", "\\\\").replace('"', '\\"')
    return escaped or "-"


def _without_query(target: str) -> str:
    # It may have a token in it that nobody has declared a secret.
    path, mark, _ = target.partition("?")
    return f"{path}?..." if mark else path


class _LoggedHead(Head):
    """A head with what the log shows of it."""

    referer: str
    agent: str


def _read_head(head: bytes, access: Access, is_trusted: bool) -> Head | None:
    found = read_head(head, access, is_trusted)
    if found is None:
        return None
    logged = _LoggedHead(*found)
    logged.referer, logged.agent = (
        ", ".join(value.strip(b" ").decode() for value in re.findall(field, head))
        for field in (_REFERER, _AGENT)
    )
    logged.referer = _without_query(logged.referer)
    return logged


class LoggedLane(FastLane):
    """The fast lane with an access log: a class of its own, so that the other one is not slowed
    down."""

    def __init__(self, log: AccessLog, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._log = log
        self._read_head = lru_cache(HEAD_CACHE_SIZE)(_read_head)
        self._began: list[float] = []
        """When each of the requests taken was complete, in monotonic seconds."""
        self._sent: list[bytes] = []
        """The answers to these requests."""

    def _accept(self, connection: Connection, head: Head, body: bytes) -> bool:
        began = monotonic()
        is_taken = super()._accept(connection, head, body)
        if is_taken:
            self._began.append(began)
        return is_taken

    def _answering(self, taken: Sequence[Taken]) -> Callable[[Refusals], None]:
        began, self._began = self._began, []
        answer = super()._answering(taken)

        def answer_and_log(refusals: Refusals) -> None:
            self._sent = []
            answer(refusals)
            self._write(taken, began)

        return answer_and_log

    def _write(self, taken: Sequence[Taken], began: Sequence[float]) -> None:
        now = monotonic()
        for (connection, _, head), since, answer in zip(taken, began, self._sent, strict=True):
            assert isinstance(head, _LoggedHead)
            top, _, body = answer.partition(b"\r\n\r\n")
            self._log.write(
                Answered(
                    self._client(connection, head),
                    _EVENT,
                    top[9:12].decode(),
                    len(body),
                    head.referer,
                    head.agent,
                    head.sender,
                    now - since,
                )
            )

    def _received_answer(self, size: int | None) -> bytes:
        answer = super()._received_answer(size)
        self._sent.append(answer)
        return answer

    def _refused_answer(self, error: Any) -> bytes:
        answer = super()._refused_answer(error)
        self._sent.append(answer)
        return answer
