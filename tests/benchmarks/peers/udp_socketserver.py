"""A UDPServer of the standard library's socketserver."""

from __future__ import annotations

import json
import signal
import socketserver
import sys

from .consumer import Consumer
from .udp import enlarge, exit_on_signal, show_count

consumer = Consumer()


class Handler(socketserver.BaseRequestHandler):
    """Puts its datagram's event on the queue."""

    def handle(self) -> None:
        try:
            event = json.loads(self.request[0].decode())
        except ValueError as error:
            print(f"not an event: {error}", file=sys.stderr)
        else:
            consumer.queue.put(event)


def main() -> None:
    """Receive until SIGTERM."""
    signal.signal(signal.SIGTERM, exit_on_signal)
    with socketserver.UDPServer(("127.0.0.1", int(sys.argv[1])), Handler) as server:
        enlarge(server.socket)
        try:
            server.serve_forever()
        finally:
            show_count(consumer.count)


if __name__ == "__main__":
    main()
