"""A thread that computes in pure Python beside a server, if the benchmark requests one."""

from __future__ import annotations

import mmap
import os
import threading

PACE = "BENCHMARK_PACE"
"""The variable with the descriptor of the memory in which the thread counts its rounds."""
SIZE = 16
ROUNDS, THREAD = 0, 1
"""Its words: how many rounds are done, and the thread's id."""


def shared_words(descriptor: int) -> memoryview:
    """The words in that memory."""
    return memoryview(mmap.mmap(descriptor, SIZE)).cast("Q")


def is_wanted() -> bool:
    """Whether the benchmark requests such a thread."""
    return PACE in os.environ


def compute(shutdown: threading.Event) -> None:
    """Compute until `shutdown` is set."""
    words = shared_words(int(os.environ[PACE]))
    words[THREAD] = threading.get_native_id()
    x = i = 0
    while not shutdown.is_set():
        x = (x + i * i) % 1000003
        i += 1
        words[ROUNDS] = i


def start_if_wanted() -> None:
    """Compute on a thread of its own until the process ends."""
    if is_wanted():
        threading.Thread(target=compute, args=(threading.Event(),), daemon=True).start()
