from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hiredis
import pytest

from daemonkit.events.shared.address import parse
from daemonkit.events.shared.engine import Engine as EngineLink
from daemonkit.events.shared.stream_socket import StreamSocket

from ...engines import Engine, free_port, running_engine
from ...functional.tools import need
from .conftest import Node, wait_until
from .loops import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


def opened(engine: Engine, loop: Loop) -> tuple[StreamSocket, list[Any], list[None]]:
    connection = EngineLink(parse(engine.address()), "app", "me").connect()
    answers: list[Any] = []
    ends: list[None] = []
    sock = loop.call(
        lambda: StreamSocket(connection, loop, answers.append, lambda: ends.append(None))
    )
    return sock, answers, ends


def test_answers_are_passed_on_in_order(engine: Engine, loop: Loop) -> None:
    sock, answers, _ = opened(engine, loop)
    large = "x" * 1_000_000

    def send() -> None:
        sock.send(hiredis.pack_command(("ECHO", "a")))
        sock.skip(1)
        sock.send(hiredis.pack_command(("ECHO", large)) * 5)

    loop.call(send)
    wait_until(lambda: len(answers) == 5)

    assert answers == [large.encode()] * 5
    loop.call(sock.close)


def test_the_end_of_a_connection_is_reported(own_engine: Engine, loop: Loop) -> None:
    sock, _, ends = opened(own_engine, loop)
    own_engine.kill()
    wait_until(lambda: ends)
    loop.call(sock.close)
    loop.call(sock.close)


def test_what_is_no_answer_ends_a_connection(engine: Engine, loop: Loop) -> None:
    sock, _, ends = opened(engine, loop)
    loop.call(sock.handle_error)
    assert ends == [None]
    loop.call(sock.close)
    loop.call(sock.handle_close)
    loop.call(sock.handle_read_event)
    loop.call(sock.handle_write_event)
    assert ends == [None]


def test_events_are_put_and_taken_over_tls(tmp_path: Path) -> None:
    need("openssl", "redis-server")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    openssl = shutil.which("openssl")
    assert openssl is not None
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    options = {
        "tls_port": str(port),
        "tls_cert_file": str(certificate),
        "tls_key_file": str(key),
        "tls_auth_clients": "no",
    }
    with running_engine(tmp_path / "engine", **options):
        node = Node(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}").start()
        try:
            node.handle()
            for _ in range(20):
                node.put(*["y" * 5000] * 100)
            wait_until(lambda: node.has_handled(2000))
        finally:
            node.close()
