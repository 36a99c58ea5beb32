"""An asyncio DatagramProtocol; with `--uvloop` on uvloop."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import uvloop

from .computing import start_if_wanted
from .udp import bind, show_count


class Protocol(asyncio.DatagramProtocol):
    """Puts each datagram's event on the queue."""

    def __init__(self, queue: asyncio.Queue[Any]) -> None:
        self._put = queue.put_nowait

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            event = json.loads(data.decode())
        except ValueError as error:
            print(f"not an event: {error}", file=sys.stderr)
        else:
            self._put(event)


class Consumer:
    """Counts the events on `queue`, one by one."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        self.count = 0

    async def consume(self) -> None:
        while True:
            await self.queue.get()
            self.count += 1


async def main() -> None:
    """Receive until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    consumer = Consumer()
    consuming = asyncio.create_task(consumer.consume())
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Protocol(consumer.queue), sock=bind(sys.argv[1])
    )
    await stop.wait()
    transport.close()
    consuming.cancel()
    show_count(consumer.count)


if __name__ == "__main__":
    start_if_wanted()
    if sys.argv[2:] == ["--uvloop"]:
        uvloop.run(main())
    else:
        asyncio.run(main())
