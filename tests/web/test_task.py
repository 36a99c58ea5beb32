from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from waitress import task
from waitress.adjustments import Adjustments

from daemonkit.web.task import JOIN_LIMIT, Task, with_fork_guard

from .test_request import GET, parsed


@pytest.fixture
def adjustments() -> Any:
    adjustments = Adjustments()
    adjustments.head_cache = {}
    return adjustments


class Channel:
    """Records what a task sends."""

    gathered: list[bytes] | None = None
    server = SimpleNamespace(draining=False, adj=SimpleNamespace(ident="x"))

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def write_soon(self, data: bytes) -> None:
        (self.sent if self.gathered is None else self.gathered).append(data)


def new_task(adjustments: Any, channel: Channel, length: int) -> Any:
    made: Any = Task(channel, parsed(adjustments, GET))
    made.complete, made.status, made.content_length = True, "200 OK", length
    return made


@pytest.mark.parametrize(("size", "sent"), [(JOIN_LIMIT, 1), (JOIN_LIMIT + 1, 2)])
def test_a_head_is_sent_together_with_a_small_body(adjustments: Any, size: int, sent: int) -> None:
    channel = Channel()
    new_task(adjustments, channel, size).write(b"x" * size)

    assert len(channel.sent) == sent
    head, _, body = b"".join(channel.sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"x" * size


def test_parts_after_the_head_are_sent_as_they_come(adjustments: Any) -> None:
    channel = Channel()
    answer = new_task(adjustments, channel, 3)
    for part in (b"a", b"b", b"c"):
        answer.write(part)

    assert [sent[-1:] for sent in channel.sent] == [b"a", b"b", b"c"]
    assert channel.sent[1:] == [b"b", b"c"]


def test_an_error_before_the_head_is_sent_can_still_be_answered(adjustments: Any) -> None:
    channel = Channel()
    answer = new_task(adjustments, channel, 4)
    with pytest.raises(TypeError):
        answer.write("text")

    assert (channel.sent, channel.gathered, answer.wrote_header) == ([], None, False)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("no"), "ValueError: no"),
        (SystemExit(3), "RuntimeError: a route raised SystemExit: 3"),
        (KeyboardInterrupt("now"), "RuntimeError: a route raised KeyboardInterrupt: now"),
    ],
    ids=repr,
)
def test_any_base_exception_in_a_route_becomes_an_exception(
    adjustments: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, expected: str
) -> None:
    def fail(self: Any) -> None:
        raise error

    monkeypatch.setattr(task.WSGITask, "execute", fail)
    with pytest.raises(Exception) as raised:  # noqa: PT011
        new_task(adjustments, Channel(), 0).execute()

    assert f"{type(raised.value).__name__}: {raised.value}" == expected


class Parts:
    """A body that may fork while it is iterated or closed."""

    def __init__(self, fork: Callable[[], Any], at: str) -> None:
        self._fork, self._at = fork, at
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in ("part", "second", "end", "error"):
            if part == self._at:
                self._fork()
            if part == "error":
                return
            yield part.encode()

    def close(self) -> None:
        self.closed += 1
        if self._at == "close":
            self._fork()


def read(application: Any) -> list[bytes]:
    body = with_fork_guard(application)({}, lambda *_: None)
    parts = list(body)
    if hasattr(body, "close"):
        body.close()  # type: ignore[attr-defined]
    return parts


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("at", ["call", "part", "second", "error", "close"])
def test_a_child_forked_while_a_route_answers_exits(at: str) -> None:
    parent, children = os.getpid(), []

    def fork() -> None:
        if pid := os.fork():
            children.append(pid)

    def application(environ: Any, start_response: Any) -> Parts:
        if at == "call":
            fork()
        return Parts(fork, at)

    try:
        parts = read(application)
    finally:
        # A child that is not ended would run the rest of the tests.
        if os.getpid() != parent:
            os._exit(99)

    assert parts == [b"part", b"second", b"end"]
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_child_exits_with_the_error_of_the_body_that_forked_it() -> None:
    parent = os.getpid()
    children = []

    def application(environ: Any, start_response: Any) -> Iterator[bytes]:
        yield b"part"
        if pid := os.fork():
            children.append(pid)
        else:
            raise SystemExit(7)

    try:
        assert read(application) == [b"part"]
    finally:
        if os.getpid() != parent:
            os._exit(99)

    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [7]


def test_a_body_is_closed_once_and_a_list_is_passed_through() -> None:
    parts = Parts(lambda: None, "")
    assert read(lambda *_: parts) == [b"part", b"second", b"end"]
    assert parts.closed == 1

    body = [b"x"]
    assert with_fork_guard(lambda *_: body)({}, lambda *_: None) is body
    assert read(lambda *_: iter(body)) == body
