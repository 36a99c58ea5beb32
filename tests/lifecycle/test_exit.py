from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from types import CodeType, SimpleNamespace
from typing import NoReturn

import pytest

from daemonkit.lifecycle import exit as module
from daemonkit.lifecycle.exit import (
    Deadline,
    ExitWatch,
    exit_by_signal,
    exit_now,
    flush_stdout,
    run_best_effort,
)

LOGGER = logging.getLogger("app")


class Exited(BaseException):
    """Raised in place of os._exit, with its status."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(status: int) -> NoReturn:
        raise Exited(status)

    monkeypatch.setattr(os, "_exit", leave)


def test_a_deadline_counts_down_and_keeps_a_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    deadline = Deadline(10)
    now = 104.0

    assert deadline.left() == 6.0
    assert deadline.left(keep=5.0) == 1.0
    assert deadline.left(keep=7.0) == 0.0


def test_an_action_that_blocks_or_raises_does_not_prevent_the_next_one() -> None:
    release, done = threading.Event(), threading.Event()
    ended: list[str] = []

    def block() -> None:
        release.wait(300)
        ended.append("block")

    run_best_effort(block, lambda: 1 / 0, done.set)
    was_blocked = not ended
    was_done = done.wait(20)
    release.set()

    assert was_blocked
    assert was_done


def test_without_a_thread_an_action_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    start = threading.Thread.start

    def refuse_first(thread: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse_first)
    run_best_effort(lambda: done.append(1), lambda: done.append(2))

    assert done == [2]


def test_stdout_that_nobody_reads_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        stdout.write("lost")
        opened = len(os.listdir("/proc/self/fd"))
        flush_stdout()
        stdout.flush()

        assert os.readlink(f"/proc/self/fd/{writer}") == os.devnull
        assert len(os.listdir("/proc/self/fd")) == opened


def test_a_process_without_stdout_has_nothing_to_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    flush_stdout()


@pytest.mark.usefixtures("exits")
def test_exiting_now_flushes_the_log_and_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = []

    class Recorder(io.StringIO):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def flush(self) -> None:
            flushed.append(self.name)

    handlers = [logging.StreamHandler(Recorder("log"))]
    monkeypatch.setattr(logging.getLogger(), "handlers", handlers)
    monkeypatch.setattr(sys, "stdout", Recorder("stdout"))
    monkeypatch.setattr(module, "ACTION_TIMEOUT", 20.0)
    with pytest.raises(Exited) as exited:
        exit_now(4)

    assert flushed == ["log", "stdout"]
    assert exited.value.args == (4,)


@pytest.mark.usefixtures("exits")
def test_exiting_by_a_signal_is_reported_on_stderr_and_in_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Exited) as exited:
        exit_by_signal(LOGGER, signal.SIGTERM, "7 events are left unhandled")

    assert exited.value.args == (143,)
    assert capfd.readouterr().err == "app: SIGTERM again: exiting at once\n"
    assert caplog.messages == ["SIGTERM again: exiting at once; 7 events are left unhandled"]


PYTHON_S_EXIT = compile("", "exit", "exec")


@pytest.fixture
def statuses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Statuses that a watch has exited with; it checks at once."""
    found: list[int] = []
    monkeypatch.setattr(module, "exit_now", found.append)
    monkeypatch.setattr(module, "EXIT_DELAY", 0.0)
    return found


def watch(
    monkeypatch: pytest.MonkeyPatch, bottom: CodeType | None
) -> tuple[threading.Event, list[threading.Thread]]:
    """Watch an exit with `bottom` as the main thread's outermost code, once the event is set."""
    go = threading.Event()
    exit_watch = ExitWatch(LOGGER)
    monkeypatch.setattr(module, "bottom_of", lambda thread: bottom if go.wait(300) else None)
    exit_watch.arm(Deadline(0), 4)
    return go, [thread for thread in threading.enumerate() if thread.name == "exit"]


def watch_until_it_ends(monkeypatch: pytest.MonkeyPatch, bottom: CodeType | None) -> None:
    go, threads = watch(monkeypatch, bottom)
    go.set()
    for thread in threads:
        thread.join(30)


def test_an_exit_that_blocks_is_forced_and_the_thread_is_named(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    release, entered = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        release.wait(300)

    stuck = threading.Thread(target=block, name="stuck")
    background = threading.Thread(target=release.wait, args=(300,), name="background", daemon=True)
    stuck.start()
    background.start()
    entered.wait()
    watch_until_it_ends(monkeypatch, PYTHON_S_EXIT)
    release.set()
    stuck.join()
    background.join()

    assert set(statuses) == {4}
    assert not any("background" in message for message in caplog.messages)
    (message,) = [m for m in caplog.messages if "thread stuck" in m]
    assert message.startswith(
        "The process did not exit by the deadline because of the non-daemon thread stuck:\n"
    )
    assert "in block" in message


@pytest.mark.usefixtures("statuses")
def test_the_report_and_the_flushes_need_no_new_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """During its exit, Python starts none."""
    done: list[str] = []

    def refuse(thread: threading.Thread) -> NoReturn:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    log = SimpleNamespace(flush=lambda: done.append("log"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [log])
    monkeypatch.setattr(module, "flush_stdout", lambda: done.append("stdout"))
    monkeypatch.setattr(ExitWatch, "_report_blocking", lambda self: done.append("report"))
    go, threads = watch(monkeypatch, PYTHON_S_EXIT)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    go.set()
    for thread in threads:
        thread.join(30)

    assert done == ["report", "log", "stdout"]


def test_a_report_that_blocks_does_not_keep_the_process(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    release = threading.Event()
    monkeypatch.setattr(ExitWatch, "_report_blocking", lambda self: release.wait(300))
    go, (reporter, second) = watch(monkeypatch, PYTHON_S_EXIT)
    go.set()
    second.join(30)

    assert statuses == [4]
    assert reporter.is_alive()
    release.set()
    reporter.join(30)


def test_an_exit_that_blocks_in_the_main_thread_names_it(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    main = threading.current_thread()
    others = [t for t in threading.enumerate() if t is main or t.daemon]
    monkeypatch.setattr(module.threading, "enumerate", lambda: others)
    watch = ExitWatch(LOGGER)
    watch._report_blocking()

    assert statuses == []
    (message,) = caplog.messages
    assert message.startswith(
        f"The process did not exit by the deadline because of the thread {main.name}:\n"
    )


def test_a_program_that_continues_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    watch_until_it_ends(monkeypatch, module.bottom_of(threading.main_thread()))

    assert statuses == []


def test_an_interactive_interpreter_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    watch_until_it_ends(monkeypatch, None)

    assert statuses == []


def test_outside_the_main_thread_nothing_is_watched(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    thread = threading.Thread(target=watch_until_it_ends, args=(monkeypatch, PYTHON_S_EXIT))
    thread.start()
    thread.join()

    assert statuses == []


def test_without_a_thread_nothing_is_watched(
    monkeypatch: pytest.MonkeyPatch, statuses: list[int]
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr(threading.Thread, "start", refuse)
    ExitWatch(LOGGER).arm(Deadline(0), 4)

    assert statuses == []
