"""A stub of a daemon's HTTP side, in the tests' own process."""

from __future__ import annotations

import json
import queue
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What the stub has received."""

    method: str
    path: str
    fields: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Reply(NamedTuple):
    """What the stub answers; None as its status: the connection is closed without an answer."""

    status: int | None
    body: bytes = b""
    fields: dict[str, str] = {}  # noqa: RUF012
    reason: str | None = None
    keeps_open: bool = True


def envelope(message: Any, status: int = 200, **fields: str) -> Reply:
    body = json.dumps({"message": message, "result": status == 200}).encode()
    return Reply(status, body, fields)


class Stub:
    """A server that records requests and answers them with `answer(request)`."""

    def __init__(self, answer: Callable[[Request], Reply]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        self.closed: queue.Queue[None] = queue.Queue()
        """Gets an item for each connection that was closed."""
        self.url = ""


@contextmanager
def serving(answer: Callable[[Request], Reply], unix: Path | None = None) -> Iterator[Stub]:
    """Serve on a free port, or on a Unix socket."""
    stub = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            stub.connections += 1
            super().setup()

        def do_GET(self) -> None:
            fields = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(fields.get("content-length", 0)))
            request = Request(self.command, self.path, fields, body)
            stub.requests.append(request)
            reply = stub.answer(request)
            self.close_connection = self.close_connection or not reply.keeps_open
            if reply.status is None:
                self.close_connection = True
                return
            self.send_response(reply.status, reply.reason)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.fields}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None: ...

    class Closing:
        daemon_threads = False

        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)  # type: ignore[misc]
            stub.closed.put(None)

    class Tcp(Closing, socketserver.ThreadingTCPServer): ...

    class Unix(Closing, socketserver.ThreadingUnixStreamServer): ...

    server = Tcp(("127.0.0.1", 0), Handler) if unix is None else Unix(str(unix), Handler)
    stub.url = f"unix:{unix}" if unix else f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
