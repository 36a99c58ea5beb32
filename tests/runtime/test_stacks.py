from __future__ import annotations

import threading

import pytest

from daemonkit.runtime.stacks import bottom_of, stack_of, stacks


@pytest.mark.parametrize("running", [True, False])
def test_the_stack_of_a_thread_is_told_while_it_runs(running: bool) -> None:
    release = threading.Event()
    thread = threading.Thread(target=lambda: release.wait(10))
    thread.start()
    if not running:
        release.set()
        thread.join()
    stack = stack_of(thread)
    release.set()
    thread.join()

    assert ("release.wait(10)" in stack) is running
    assert running or stack == "(no stack)\n"


def test_the_stacks_of_all_threads_name_each_of_them() -> None:
    release = threading.Event()
    thread = threading.Thread(target=lambda: release.wait(10), name="busy")
    thread.start()
    text = stacks()
    release.set()
    thread.join()

    assert f"\nbusy (thread id {thread.native_id}):\n" in text
    assert "release.wait(10)" in text
    assert f"MainThread (thread id {threading.main_thread().native_id}):\n" in text
    assert int(text.split()[0]) >= 2


def test_what_is_at_the_bottom_of_a_thread_is_what_it_runs() -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(bottom_of(threading.current_thread())))
    thread.start()
    thread.join()

    assert found[0] is threading.Thread._bootstrap.__code__  # type: ignore[attr-defined]
    assert bottom_of(thread) is None
