from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator

import pytest

from daemonkit import StartError
from daemonkit.lifecycle import signals as module
from daemonkit.lifecycle.exit import run_best_effort
from daemonkit.lifecycle.signals import Coalesced, Ignoring, Signals, kernel_handler
from daemonkit.text import error_text


def blocked_by_sigusr2() -> tuple[Signals, threading.Event, threading.Event]:
    """Signals whose action for SIGUSR2 sets the first event and waits for the second."""
    acting, release = threading.Event(), threading.Event()

    def act() -> None:
        acting.set()
        release.wait(30)

    return Signals({signal.SIGUSR2: act}), acting, release


def test_a_signal_becomes_a_call_on_another_thread_while_the_main_thread_is_busy() -> None:
    called = threading.Event()
    names: list[str] = []

    def act() -> None:
        names.append(threading.current_thread().name)
        called.set()

    signals = Signals({signal.SIGUSR2: act})
    before = signal.getsignal(signal.SIGUSR2), signal.set_wakeup_fd(-1)
    signals.start()
    installed = signal.set_wakeup_fd(signals._write_fd, warn_on_full_buffer=False)
    assert installed == signals._write_fd
    os.kill(os.getpid(), signal.SIGUSR2)
    assert called.wait(5)
    signals.request_stop()
    assert signals.join(5)

    assert names == ["signals"]
    assert (signal.getsignal(signal.SIGUSR2), signal.set_wakeup_fd(-1)) == before


def test_a_signal_that_the_program_handles_is_left_to_it(
    capfd: pytest.CaptureFixture[str],
) -> None:
    got: list[int] = []
    signals = Signals({signal.SIGUSR2: lambda: got.append(0)})
    old = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    signals.start()
    os.kill(os.getpid(), signal.SIGUSR1)
    signals.request_stop()
    signals.join(30)
    signal.signal(signal.SIGUSR1, old)

    assert got == [signal.SIGUSR1]
    assert capfd.readouterr().err == ""


@pytest.fixture
def received() -> Iterator[threading.Event]:
    """Set by SIGUSR2, which `Signals` handles until the end of the test."""
    event = threading.Event()
    signals = Signals({signal.SIGUSR2: event.set})
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    signals.start()
    yield event
    signals.request_stop()
    assert signals.join(30)
    # Discards one that is still pending.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    signal.signal(signal.SIGUSR2, signal.SIG_DFL)


def test_a_signal_that_was_blocked_is_unblocked(received: threading.Event) -> None:
    os.kill(os.getpid(), signal.SIGUSR2)

    assert received.wait(30)


def test_a_signal_arrives_although_another_library_has_replaced_the_descriptor(
    received: threading.Event,
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ours = signal.set_wakeup_fd(writer)
    os.kill(os.getpid(), signal.SIGUSR2)
    arrived = received.wait(30)
    theirs = signal.set_wakeup_fd(ours)
    os.close(reader)
    os.close(writer)

    assert arrived
    assert theirs == writer


def test_signals_that_the_pipe_has_no_room_for_are_dropped_in_silence(
    capfd: pytest.CaptureFixture[str],
) -> None:
    signals, acting, release = blocked_by_sigusr2()
    signals.start()
    # Not by a signal: the first one installs the descriptor again.
    os.write(signals._write_fd, bytes([signal.SIGUSR2]))
    assert acting.wait(30)
    for size in (512, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(signals._write_fd, b"\xff" * size)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGUSR2)
    os.read(signals._read_fd, 1 << 20)
    release.set()
    signals.request_stop()
    assert signals.join(30)

    assert capfd.readouterr().err == ""


def test_join_tells_whether_the_action_that_runs_has_ended() -> None:
    signals, acting, release = blocked_by_sigusr2()
    signals.start()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert acting.wait(30)
    signals.request_stop()
    ended = signals.join(0)
    release.set()

    assert not ended
    assert [signals.join(30), signals.join(30)] == [True, True]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_the_stop_a_forked_child_keeps_what_the_program_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signals = Signals({signal.SIGUSR2: lambda: None})
    signals.start()
    signals.request_stop()
    assert signals.join(30)
    # The wakeup descriptor can't be compared: since Python 3.12, asyncio resets it in a child.
    monkeypatch.setattr(signals, "restore", lambda: os._exit(1))
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    pid = os.fork()
    if pid == 0:
        os._exit(10 * (signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN))
    signal.signal(signal.SIGUSR2, old)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10


@pytest.mark.usefixtures("received")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_has_the_previous_handlers_and_an_unblocked_signal() -> None:
    ours = signal.getsignal(signal.SIGUSR2)
    pid = os.fork()
    if pid == 0:
        restored = signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
        blocked = signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
        os._exit(10 * restored + blocked)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
    assert signal.getsignal(signal.SIGUSR2) == ours
    assert signal.SIGUSR2 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_outside_of_the_main_thread_signals_are_left_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals({signal.SIGTERM: lambda: None})
    thread = threading.Thread(target=signals.start)
    thread.start()
    thread.join()
    signals.request_stop()

    assert signals.join(1)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signals.running_threads() == []


def test_requests_during_a_run_cause_one_more_run() -> None:
    runs: list[int] = []
    entered, release = threading.Event(), threading.Event()

    def work() -> None:
        # Else a hung reload would keep the process from ending.
        assert threading.current_thread().daemon
        runs.append(1)
        entered.set()
        release.wait(10)

    coalesced = Coalesced(work, "work", logging.getLogger("test"))
    coalesced.request()
    entered.wait(10)
    for _ in range(100):
        coalesced.request()
    release.set()
    while coalesced._running:
        time.sleep(0.001)

    assert len(runs) == 2


@pytest.mark.parametrize("error", [ValueError("no"), CancelledError(), SystemExit(1)])
def test_a_failing_run_is_logged_and_the_next_request_runs(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    runs: list[int] = []

    def work() -> None:
        runs.append(1)
        raise error

    coalesced = Coalesced(work, "reload", logging.getLogger("test"))
    for count in (1, 2):
        coalesced.request()
        while coalesced._running:
            time.sleep(0.001)
        assert len(runs) == count

    assert caplog.messages == ["reload failed"] * 2
    assert all(entry.exc_info for entry in caplog.records)


def test_the_next_run_waits_for_the_pause() -> None:
    times: list[float] = []
    coalesced = Coalesced(
        lambda: times.append(time.monotonic()), "work", logging.getLogger("test"), pause=0.2
    )
    for _ in range(3):
        coalesced.request()
        while coalesced._running:
            time.sleep(0.001)

    assert len(times) == 3
    assert times[1] - times[0] >= 0.2
    assert times[2] - times[1] >= 0.2


REFUSALS = [RuntimeError("can't start new thread"), MemoryError()]


@pytest.fixture(params=REFUSALS, ids=error_text)
def refusal(request: pytest.FixtureRequest) -> Exception:
    """What starting a thread may raise."""
    error: Exception = request.param
    return error


def refusing(error: Exception) -> Callable[[threading.Thread], None]:
    def start(self: threading.Thread) -> None:
        raise error

    return start


def test_without_a_thread_a_request_is_reported_and_the_next_one_retries(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], refusal: Exception
) -> None:
    ran = threading.Event()
    coalesced = Coalesced(ran.set, "reload", logging.getLogger("app"))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refusing(refusal))
        coalesced.request()
        run_best_effort(ran.set)
    line = capfd.readouterr().err
    assert not ran.is_set()
    coalesced.request()

    assert ran.wait(10)
    assert line == f"app: reload failed: {error_text(refusal)}\n"


def test_without_a_thread_for_signals_nothing_is_taken_over(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception
) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    signals = Signals({signal.SIGUSR2: lambda: None})
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refusing(refusal))
        with pytest.raises(StartError, match=f"^cannot start: {error_text(refusal)}$"):
            signals.start()
    restored = signal.getsignal(signal.SIGUSR2)
    signals.request_stop()

    assert signals.join(1)
    assert restored == before


def test_a_failing_action_does_not_disable_later_signals(
    capfd: pytest.CaptureFixture[str],
) -> None:
    calls, again = [], threading.Event()

    def act() -> None:
        calls.append(1)
        if len(calls) == 2:
            again.set()
        raise ValueError("no")

    signals = Signals({signal.SIGUSR2: act})
    signals.start()
    os.kill(os.getpid(), signal.SIGUSR2)
    while not calls:
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert again.wait(10)
    signals.request_stop()
    signals.join(10)

    assert capfd.readouterr().err == "SIGUSR2 failed: ValueError('no')\n" * 2


def fill(fd: int) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, bytes([signal.SIGUSR2]) * 512)


def test_a_stop_request_ends_the_thread_although_the_pipe_is_full() -> None:
    signals, acting, release = blocked_by_sigusr2()
    signals.start()
    os.kill(os.getpid(), signal.SIGUSR2)
    assert acting.wait(5)
    fill(signals._write_fd)

    signals.request_stop()
    release.set()
    assert signals.join(30)


def test_a_signal_is_not_an_error_although_the_pipe_is_full_and_another_wakeup_descriptor_is_set() -> (
    None
):
    signals, acting, release = blocked_by_sigusr2()
    signals.start()
    signal.raise_signal(signal.SIGUSR2)
    assert acting.wait(5)
    fill(signals._write_fd)
    signal.set_wakeup_fd(-1)
    signal.raise_signal(signal.SIGUSR2)

    signals.request_stop()
    release.set()
    assert signals.join(30)


def test_a_stop_signal_is_ignored_while_it_is_fresh_and_then_has_its_former_handler() -> None:
    seen: list[int] = []
    fresh = [True]
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    signals = Signals({signal.SIGTERM: lambda: None}, lambda: fresh[0])
    try:
        signals.start()
        signals.request_stop()
        assert signals.join(5)
        signal.raise_signal(signal.SIGTERM)
        ignored = list(seen)
        fresh[0] = False
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (ignored, seen) == ([], [signal.SIGTERM] * 2)


def test_the_kernel_s_handler_shows_what_python_does_not_know() -> None:
    by_default = kernel_handler(signal.SIGUSR2)
    before = signal.signal(signal.SIGUSR2, Ignoring(lambda: True, signal.SIG_DFL))
    try:
        by_python = kernel_handler(signal.SIGUSR2)
        with open(os.devnull, "w") as file:
            faulthandler.register(signal.SIGUSR2, file=file)
            by_faulthandler = kernel_handler(signal.SIGUSR2)
            faulthandler.unregister(signal.SIGUSR2)
        afterwards = kernel_handler(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)

    assert by_default == 0
    assert by_python == afterwards
    assert by_faulthandler not in (0, by_python)


def test_without_ctypes_the_kernel_s_handler_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ctypes", None)

    assert kernel_handler(signal.SIGUSR2) is None
