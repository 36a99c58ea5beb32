"""Clients that send numbered events and record which of them were acknowledged."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

NUMBERS = 10_000_000
"""How many numbers each sender has."""


class Sender:
    """Sends events over one connection after the other, until each breaks.

    at_once: events of a request, NDJSON if more than one; ahead: requests sent before the first is
    answered.
    """

    def __init__(self, number: int, *, at_once: int = 1, ahead: int = 1) -> None:
        self.first = self.next = number * NUMBERS
        self.acknowledged: list[int] = []
        self.refused = 0
        self._at_once, self._ahead = at_once, ahead

    def run(self, port: int, stopping: threading.Event) -> None:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=20) as sock,
                sock.makefile("rb") as answers,
            ):
                while not stopping.is_set():
                    self._send(sock, answers)
        # The daemon was killed.
        except ConnectionError:
            pass

    def _send(self, sock: socket.socket, answers: Any) -> None:
        requests = []
        for _ in range(self._ahead):
            requests.append(range(self.next, self.next + self._at_once))
            self.next += self._at_once
        sock.sendall(b"".join(map(request, requests)))
        for numbers in requests:
            if read_status(answers) == 200:
                self.acknowledged += numbers
            else:
                self.refused += len(numbers)


class DatagramSender(Sender):
    """The same over UDP, which never answers: at most two thousand events per second."""

    def run(self, port: int, stopping: threading.Event) -> None:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.connect(("127.0.0.1", port))
                while not stopping.is_set():
                    sock.send(b"%d" % self.next)
                    self.next += 1
                    time.sleep(0.0005)
        except ConnectionError:
            pass


def request(events: Sequence[Any]) -> bytes:
    """A request that posts events."""
    body = "\n".join(map(json.dumps, events)).encode()
    kind = "application/json" if len(events) == 1 else "application/x-ndjson"
    head = f"POST /events HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def read_status(answers: Any) -> int:
    """Read one answer, and return its status."""
    line = answers.readline()
    if not line:
        raise ConnectionResetError
    length = 0
    while header := answers.readline().strip():
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    answers.read(length)
    return int(line.split()[1])


@contextmanager
def sending(senders: Sequence[Sender], port: int) -> Iterator[None]:
    """Run the senders for the time of a `with` block."""
    stopping = threading.Event()
    threads = [threading.Thread(target=sender.run, args=(port, stopping)) for sender in senders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
