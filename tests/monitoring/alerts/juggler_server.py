"""A local HTTP server in the role of Juggler or of another target: it can accept, refuse, fail,
hang, or send nonsense."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any]
ACCEPT: Reply = (200, {"events": [{"code": 200, "message": "OK"}]})


class FakeJuggler:
    """requests: the bodies received, in order; paths, authorizations: the path and the header of
    each; reply: what is answered, None to hang."""

    def __init__(self, reply: Reply | None = ACCEPT) -> None:
        self.requests: list[Any] = []
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        self.reply = reply
        self.released = threading.Event()
        self.url = ""

    def answer(self, body: Any) -> Reply | None:
        self.requests.append(body)
        return self.reply


def _handler(juggler: FakeJuggler) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # One segment per answer: two would wait for the peer's delayed acknowledgement.
        wbufsize = -1

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            juggler.paths.append(self.path)
            juggler.authorizations.append(self.headers["Authorization"])
            reply = juggler.answer(body)
            if reply is None:
                juggler.released.wait(300)
                self.close_connection = True
                return
            code, value = reply
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            if code == 302:
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None: ...

    return Handler


@contextmanager
def juggler_server(juggler: FakeJuggler, port: int = 0) -> Iterator[FakeJuggler]:
    with ThreadingHTTPServer(("127.0.0.1", port), _handler(juggler)) as server:
        # A kept-alive connection ends with the outbox that holds it.
        server.block_on_close = False
        juggler.url = f"http://127.0.0.1:{server.server_port}/events"
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield juggler
        finally:
            juggler.released.set()
            server.shutdown()
            thread.join()


def wait_for(condition: Callable[[], Any], timeout: float = 60.0) -> None:
    pause = threading.Event()
    for _ in range(int(timeout / 0.005)):
        if condition():
            return
        pause.wait(0.005)
    raise TimeoutError("the condition did not come true")
