"""The stacks of threads, as text for the log."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_COLLECTIONS_OFF = threading.Lock()


class AwaitingThread(threading.Thread):
    """A thread that may run coroutines; awaited: returns what they await, for its stack."""

    awaited: Callable[[], str] = staticmethod(str)


def stack_of(thread: threading.Thread) -> str:
    """A thread's current stack, formatted like a traceback, and what its coroutines await."""
    return _formatted(_frames().get(thread.ident or 0)) + _awaited_in_thread(thread)


def _awaited_in_thread(thread: threading.Thread | None) -> str:
    return thread.awaited() if isinstance(thread, AwaitingThread) else ""


def _frames() -> dict[int, FrameType]:
    """The current frame of each thread.

    With Python 3.11, a garbage collection inside `sys._current_frames` can deadlock with a thread
    that is just being started (CPython issue 106883).
    """
    # Two at once could switch collections on too early, or leave them off.
    with _COLLECTIONS_OFF:
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames()
        finally:
            if was_enabled:
                gc.enable()


def awaited_in(coroutine: Any) -> str:
    """A coroutine's current line, and those of the coroutines it awaits, outermost first."""
    parts = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        parts += traceback.format_stack(frame, limit=1)
        coroutine = coroutine.cr_await
    return "It awaits:\n" + "".join(parts)


def stacks() -> str:
    """The stacks of all threads, including those that `threading` doesn't know."""
    known = {thread.ident: thread for thread in threading.enumerate()}
    parts = []
    for ident, frame in _frames().items():
        thread = known.get(ident)
        name = f"thread {ident}" if thread is None else thread.name
        native = "" if thread is None else f" (thread id {thread.native_id})"
        awaited = _awaited_in_thread(thread)
        parts.append(f"{name}{native}:\n{_formatted(frame)}{awaited}")
    return f"{len(parts)} threads\n" + "".join(sorted(parts))


def bottom_of(thread: threading.Thread) -> CodeType | None:
    """The code of a thread's outermost frame; None for a thread without a stack."""
    frame = _frames().get(thread.ident or 0)
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return None if frame is None else frame.f_code


def _formatted(frame: FrameType | None) -> str:
    return "".join(traceback.format_stack(frame)) if frame else "(no stack)\n"
