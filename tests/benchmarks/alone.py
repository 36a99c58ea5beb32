"""Measurements in a process of their own: `python -m tests.benchmarks.alone decode|queue`.

decode: `JSONDecoder().decode` over the lines of the NDJSON row, and nothing else.
queue: events from a producer through daemonkit's queue and event processor to a handler.
Each prints its events per second.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from json import JSONDecoder
from typing import Any

from daemonkit.events.entry import Batch
from daemonkit.events.memory import MemoryQueue
from daemonkit.events.processor import Processor

from .load import BATCH

QUEUE_SIZE = 100_000
EVENTS = 1_000_000
AT_A_TIME = 100


def decode_rate(seconds: float = 1.0) -> float:
    """Decode the lines repeatedly for a while."""
    lines = [line.decode() for line in BATCH]
    decode = JSONDecoder().decode
    began, decoded = time.perf_counter(), 0
    while (taken := time.perf_counter() - began) < seconds:
        for line in lines:
            decode(line)
        decoded += len(lines)
    return decoded / taken


def queue_rate() -> float:
    """Send events through the queue, and wait until each has been handled."""
    queue = MemoryQueue(QUEUE_SIZE)
    handled = 0

    def handle(event: Any) -> None:
        nonlocal handled
        handled += 1

    processor = Processor(queue, handle, logging.getLogger("benchmark"))
    batch = Batch([{"Hello": "World"}] * AT_A_TIME)

    def produce() -> None:
        for _ in range(EVENTS // AT_A_TIME):
            # A full queue would refuse events, and a sender would wait, too.
            while len(queue) > QUEUE_SIZE // 2:
                time.sleep(0.001)
            queue.put_many(batch)

    producer = threading.Thread(target=produce)
    processor.start()
    began = time.perf_counter()
    producer.start()
    producer.join()
    processor.request_stop()
    if not processor.join(30):
        sys.exit("the event processor did not stop")
    taken = time.perf_counter() - began
    if handled != EVENTS:
        sys.exit(f"{handled} of {EVENTS} events were handled")
    return EVENTS / taken


if __name__ == "__main__":
    print({"decode": decode_rate, "queue": queue_rate}[sys.argv[1]]())
