from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Generator
from types import SimpleNamespace
from typing import Any

import pytest

from daemonkit.runtime import stacks as stacks_module
from daemonkit.runtime.stacks import awaited_in, bottom_of, stack_of, stacks


@pytest.mark.parametrize("running", [True, False])
def test_a_thread_has_a_stack_while_it_runs(running: bool) -> None:
    is_running, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: is_running.set() or release.wait(10))
    thread.start()
    is_running.wait(10)
    if not running:
        release.set()
        thread.join()
    stack = stack_of(thread)
    release.set()
    thread.join()

    assert ("release.wait(10)" in stack) is running
    assert running or stack == "(no stack)\n"


def test_the_stacks_name_each_thread() -> None:
    is_running, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: is_running.set() or release.wait(10), name="busy")
    thread.start()
    is_running.wait(10)
    text = stacks()
    release.set()
    thread.join()

    assert f"\nbusy (thread id {thread.native_id}):\n" in text
    assert "release.wait(10)" in text
    assert f"MainThread (thread id {threading.main_thread().native_id}):\n" in text
    assert int(text.split()[0]) >= 2


def test_the_bottom_of_a_thread_is_the_code_of_its_outermost_frame() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(bottom_of(threading.current_thread())))
    thread.start()
    thread.join()

    assert found[0] is threading.Thread._bootstrap.__code__  # type: ignore[attr-defined]
    assert bottom_of(thread) is None


def test_a_coroutine_s_stack_includes_what_it_awaits() -> None:
    class Pause:
        def __await__(self) -> Generator[None, None, None]:
            yield

    async def inner() -> None:
        await Pause()  # the innermost line

    async def outer() -> None:
        await inner()  # the outer line

    coroutine = outer()
    coroutine.send(None)
    text = awaited_in(coroutine)
    coroutine.close()

    assert text.startswith("It awaits:\n")
    assert text.index("the outer line") < text.index("the innermost line")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether collections were on, each time frames were gathered."""
    found: list[bool] = []
    gather = sys._current_frames

    def current_frames() -> Any:
        found.append(gc.isenabled())
        return gather()

    monkeypatch.setattr(sys, "_current_frames", current_frames)
    return found


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_while_frames_are_gathered(seen: list[bool], enabled: bool) -> None:
    if not enabled:
        gc.disable()
    try:
        stacks()
        stack_of(threading.current_thread())
        bottom_of(threading.current_thread())
        assert seen == [False] * 3
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_threads_that_ask_at_once_do_not_switch_it_on_early(
    monkeypatch: pytest.MonkeyPatch, seen: list[bool]
) -> None:
    def disable() -> None:
        gc.disable()
        time.sleep(0.0001)  # another thread's turn

    def ask() -> None:
        for _ in range(50):
            stack_of(threading.current_thread())

    monkeypatch.setattr(
        stacks_module,
        "gc",
        SimpleNamespace(isenabled=gc.isenabled, disable=disable, enable=gc.enable),
    )
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [False] * 200
    assert gc.isenabled()
