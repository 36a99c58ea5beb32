from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable

import pytest

from daemonkit.runtime.forks import CloseInChild, ForkFlag, ForkGuard

# pytest-xdist has threads; since Python 3.12 a fork warns about them.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


def exit_status(child: Callable[[], object]) -> int:
    """The exit status of a forked child that calls `child`, 99 if that returns."""
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (SystemExit(), 0),
        (SystemExit(7), 7),
        (SystemExit("text"), 1),
        (ValueError("no"), 1),
    ],
    ids=repr,
)
def test_a_child_exits_with_the_status_of_a_python_program(
    error: BaseException | None, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    guard = ForkGuard()

    assert exit_status(lambda: guard.end_child(error)) == status
    shown = "ValueError: no\n" if isinstance(error, ValueError) else ""
    assert capfd.readouterr().err == shown


def test_a_child_reports_its_error_as_a_python_program(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def report(kind: type[BaseException], error: BaseException, _trace: object) -> None:
        print(f"reported {kind.__name__}: {error}", file=sys.stderr)
        raise KeyboardInterrupt

    guard = ForkGuard()
    monkeypatch.setattr(sys, "excepthook", report)

    assert exit_status(lambda: guard.end_child(ValueError("no"))) == 1
    assert capfd.readouterr().err == "reported ValueError: no\n"


def test_the_parent_continues() -> None:
    ForkGuard().end_child()
    ForkGuard().end_child(ValueError("no"))


def test_a_guard_made_in_the_child_lets_it_continue() -> None:
    assert exit_status(lambda: ForkGuard().end_child()) == 99


def test_the_flag_is_set_in_the_child_only() -> None:
    flag = ForkFlag()

    assert exit_status(lambda: os._exit(flag.is_child)) == 1
    assert not flag.is_child


def test_a_descriptor_is_closed_in_the_child_only() -> None:
    fd, other = os.pipe()
    closing = CloseInChild(fd)

    def stat() -> None:
        try:
            os.fstat(fd)
        except OSError:
            os._exit(5)

    assert exit_status(stat) == 5
    os.fstat(fd)
    closing.forget()
    assert exit_status(stat) == 99
    os.close(fd)
    os.close(other)


def test_a_collected_object_leaves_the_descriptor_alone() -> None:
    fd, other = os.pipe()
    CloseInChild(fd)
    gc.collect()

    assert exit_status(lambda: os.fstat(fd)) == 99
    os.close(fd)
    os.close(other)
