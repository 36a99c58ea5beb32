from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from daemonkit.exceptions import StartError
from daemonkit.system.json_streams import LONGEST_LINE, JsonStream, json_line, json_streams
from daemonkit.system.log_handlers import StdoutHandler

from .records import hide, record


class Output(io.StringIO):
    """What reached a real stream, and how often it was written to."""

    writes = 0
    encoding = "utf-8"

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)

    def fields(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def messages(self) -> list[str]:
        return [fields["message"] for fields in self.fields()]


class Outputs:
    """The two streams of a process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.out, self.err = Output(), Output()
        self._monkeypatch = monkeypatch

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Print to them as JSON."""
        # Not in the fixture: pytest sets its own before the test.
        self._monkeypatch.setattr(sys, "stdout", self.out)
        self._monkeypatch.setattr(sys, "stderr", self.err)
        with json_streams(hide):
            yield


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Outputs:
    return Outputs(monkeypatch)


def test_each_line_that_is_printed_is_an_object_on_its_own_stream(
    outputs: Outputs,
) -> None:
    out, err = outputs.out, outputs.err
    with outputs():
        print("say", "hush")
        print("two\r\nlines\n\n", file=sys.stderr)
        assert sys.stdout.write("four") == 4

    (first, last), lines = out.fields(), err.fields()
    assert {**first, "time": None} == {
        "time": None,
        "level": "INFO",
        "logger": "stdout",
        "thread": "MainThread",
        "message": "say *",
    }
    assert last["message"] == "four"
    assert [(line["level"], line["logger"], line["message"]) for line in lines] == [
        ("ERROR", "stderr", "two"),
        ("ERROR", "stderr", "lines"),
    ]
    assert (sys.stdout, sys.stderr) == (out, err)


def test_a_line_ends_at_its_end_at_a_flush_or_when_it_gets_too_long(
    outputs: Outputs,
) -> None:
    out = outputs.out
    with outputs():
        print("a", end="")
        print("b", end="")
        assert out.fields() == []
        print("c", end="", flush=True)
        print("d", end="\ne")
        print("x" * LONGEST_LINE, end="")

    assert out.messages() == ["abc", "d", "e" + "x" * LONGEST_LINE]
    assert out.writes == 3


def test_threads_do_not_mix_their_lines(outputs: Outputs) -> None:
    out = outputs.out
    with outputs():
        print("main", end="")
        thread = threading.Thread(target=lambda: print("thread", end=""), name="other")
        thread.start()
        thread.join()
        print(" goes on")

    assert out.messages() == ["thread", "main goes on"]


def test_an_unfinished_line_of_an_ended_thread_is_one_of_its_own(outputs: Outputs) -> None:
    def run(text: str) -> None:
        # The second thread may get the first one's identifier.
        thread = threading.Thread(target=lambda: print(text, end=""))
        thread.start()
        thread.join()

    with outputs():
        run("one")
        run("two")

    assert outputs.out.messages() == ["one", "two"]


def test_a_secret_of_several_lines_is_hidden(outputs: Outputs) -> None:
    stream = JsonStream(outputs.out, "stdout", lambda text: text.replace("one\ntwo", "*"))
    print("-one\ntwo-", file=stream)

    assert outputs.out.messages() == ["-*-"]


def test_the_stand_in_looks_like_the_real_stream() -> None:
    real = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="replace")
    stream = JsonStream(real, "stdout", hide)
    assert (stream.encoding, stream.errors, stream.isatty()) == ("latin-1", "replace", False)
    assert (stream.writable(), stream.line_buffering) == (True, False)
    stream.reconfigure(line_buffering=True)
    assert stream.line_buffering is True
    assert stream.buffer.write(b"caf\xe9\n") == 5
    stream.buffer.flush()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()
    with pytest.raises(TypeError, match="must be str, not bytes"):
        stream.write(b"x")  # type: ignore[arg-type]

    assert json.loads(real.buffer.getvalue())["message"] == "caf\xe9"  # type: ignore[attr-defined]


def test_the_users_handlers_write_through_the_stand_ins_and_back(
    outputs: Outputs,
) -> None:
    err = outputs.err
    before, during = logging.StreamHandler(err), None
    logger = logging.getLogger("test.streams.child")
    logger.propagate = False
    logger.addHandler(before)
    try:
        with outputs():
            during = logging.StreamHandler()
            logger.addHandler(during)
            logger.warning("hush")
        assert err.messages() == ["*", "*"]
        assert [before.stream, during.stream] == [err, err]
    finally:
        logger.handlers.clear()
        logger.propagate = True


def test_within_another_block_nothing_is_wrapped_twice(outputs: Outputs) -> None:
    out = outputs.out
    with outputs():
        with json_streams(hide):
            print("inner")
        print("outer")

    assert out.messages() == ["inner", "outer"]


def test_the_log_of_another_daemon_writes_to_the_real_stream(outputs: Outputs) -> None:
    with outputs():
        StdoutHandler().handle(record("hush"))

    assert outputs.out.getvalue() == "hush\n"


def test_a_stream_that_the_program_has_replaced_meanwhile_is_left_alone(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Output()
    with outputs():
        monkeypatch.setattr(sys, "stdout", own)

    assert sys.stdout is own


def test_a_missing_stream_stays_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with json_streams(hide):
        assert sys.stdout is None


@pytest.mark.parametrize(
    ("error", "stay"), [(StartError("no"), False), (SystemExit(), False), (KeyError("x"), True)]
)
def test_the_stand_ins_stay_for_an_exception_that_python_is_about_to_report(
    outputs: Outputs, error: BaseException, stay: bool
) -> None:
    with pytest.raises(type(error)), outputs():
        raise error

    assert isinstance(sys.stderr, JsonStream) is stay


def test_an_exception_that_nobody_has_caught_is_one_object(
    outputs: Outputs,
) -> None:
    stream = JsonStream(outputs.err, "stderr", hide)
    try:
        raise ValueError("hush")
    except ValueError as error:
        stream.report("", error, error.__traceback__)

    (fields,) = outputs.err.fields()
    assert (fields["message"], fields["level"]) == ("Uncaught exception", "ERROR")
    assert fields["exception"].endswith("ValueError: *")


def test_a_line_can_be_made_without_a_stream() -> None:
    fields = json.loads(json_line(hide, "app", logging.CRITICAL, "100 % hush"))

    assert (fields["logger"], fields["level"], fields["message"]) == ("app", "CRITICAL", "100 % *")
