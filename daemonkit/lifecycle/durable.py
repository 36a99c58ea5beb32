"""Opens the durable queue at the start."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..config.checks import is_address
from ..config.defaults import Settings
from ..events.entry import Batch, EventQueue
from ..events.memory import MemoryQueue
from ..exceptions import BatchTooLarge, StartError, Unavailable, missing_extra


def make_durable_queue(
    settings: Settings, logger: logging.Logger, *, name: str, changed: Callable[[], None]
) -> EventQueue:
    """The durable queue that the settings ask for, in a file or shared by many daemons; changed:
    called when its state has changed. Raises StartError."""
    assert settings.queue is not None
    if is_address(settings.queue):
        return _make_shared_queue(settings, settings.queue, logger, name, changed)
    # With SQLite, it takes a thirtieth of the time to start, which others save.
    from ..events.durable.queue import DurableQueue  # noqa: PLC0415

    queue = DurableQueue(
        settings.queue,
        logger,
        name=name,
        size=settings.queue_size,
        disk=settings.queue_max_disk,
        ack_batch=settings.ack_batch,
        changed=changed,
    )
    queue.with_meta = True
    return queue


def _make_shared_queue(
    settings: Settings,
    address: str,
    logger: logging.Logger,
    name: str,
    changed: Callable[[], None],
) -> EventQueue:
    try:
        from ..events.shared.queue import SharedQueue  # noqa: PLC0415
    except ImportError as error:
        raise missing_extra(error) from None
    queue = SharedQueue(
        address,
        logger,
        name=name,
        size=settings.queue_size,
        ack_batch=settings.ack_batch,
        timeout=settings.node_timeout,
        replicas=settings.confirm.get("replicas", 0),
        on_disk=settings.confirm.get("aof", False),
        dead_letters=settings.dead_letters,
        changed=changed,
    )
    queue.with_meta = True
    return queue


def move_events(before: MemoryQueue, queue: EventQueue) -> None:
    """Put what was put before the start on the queue; raises StartError."""
    entries = before.drained()
    if not entries:
        return
    lines = [entry.line or b"" for entry in entries]
    try:
        queue.put_early(Batch([entry.event for entry in entries], lines, "app"))
    except (Unavailable, BatchTooLarge) as error:
        raise StartError(f"the events that were put before the start: {error}") from None
