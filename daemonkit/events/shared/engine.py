"""Connections to the engine, and calls of its scripts."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from typing import Any

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from redis.sentinel import Sentinel

from ...exceptions import StartError
from .address import Address
from .layout import LAYOUT, Script, keys_of, prefix_of
from .scripts import JOIN

CONNECT_TIMEOUT = 1.0
"""Seconds. A longer one would outlast an engine that is there again."""
CALL_TIMEOUT = 2.0
MOST_HOPS = 3
"""How often nodes of a cluster may name another one."""
MINIMUM = (7, 0)
"""The oldest version with what the scripts use."""

_REFUSALS = (exceptions.AuthenticationError, exceptions.NoPermissionError)
_CODES = {
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}
"""Those that redis-py leaves out of the text."""
_HARMLESS = {"NOSCRIPT", "NOGROUP", "OOM"}
"""Answers after which the connection can still be used."""


class EngineAway(Exception):
    """The engine can't be reached, or can't do what is asked for now.

    code: the first word of its answer, "" if there was none.
    """

    def __init__(self, text: str, code: str = "") -> None:
        super().__init__(text)
        self.code = code


class EngineRefuses(EngineAway):
    """The engine refuses the login, or a right."""


def translated(error: Exception) -> EngineAway:
    """What an exception of redis-py, or of a socket, means."""
    # Without what redis-py says around the system's text.
    text = re.sub(r"^Error \S+ connecting to \S+\. (.+?)\.?$", r"\1", str(error))
    text = re.sub(r"^Error while .+ \S+ ?: \(\d+, '(.+)'\)$", r"\1", text)
    text = text or type(error).__name__
    if isinstance(error, _REFUSALS) or "DB index" in text:
        return EngineRefuses(text)
    if not isinstance(error, exceptions.ResponseError):
        return EngineAway(text)
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "")
    first = text.partition(" ")[0]
    return EngineAway(text if code in ("", first) else f"{code} {text}", code or first)


class Engine:
    """Where the queue is.

    name: of the daemon, "" to see which there are; putter: the node whose puts are numbered.
    """

    def __init__(self, address: Address, name: str, putter: str) -> None:
        self.shown = address.shown
        self._name = name
        self.prefix = prefix_of(name)
        self.keys = keys_of(self.prefix, putter)
        self.stream = self.keys[0]
        self._address = address

    def connect(self, timeout: float = CALL_TIMEOUT) -> Connection:
        """A new connection; timeout: seconds to wait for each answer. Raises EngineAway."""
        options = {**self._address.options}
        kind = options.pop("connection_class", Connection)
        try:
            if self._address.sentinels:
                options["host"], options["port"] = self._primary()
            for _ in range(MOST_HOPS):
                connection = self._connected(kind, options, timeout)
                try:
                    self._look_in(connection)
                    return connection
                except exceptions.MovedError as moved:
                    options |= {"host": moved.host or options["host"], "port": moved.port}
        except (exceptions.RedisError, OSError) as error:
            raise translated(error) from None
        raise EngineAway("the nodes of the cluster disagree about where the queue is")

    def _connected(
        self, kind: type[Connection], options: dict[str, Any], timeout: float
    ) -> Connection:
        connection = kind(
            **{"protocol": 2, **options},
            socket_timeout=timeout,
            socket_connect_timeout=CONNECT_TIMEOUT,
            # A put that it sends again would be a second one.
            retry=Retry(NoBackoff(), 0),
        )
        connection.connect()
        return connection

    def _look_in(self, connection: Connection) -> None:
        """Ask whether the queue is there: it may be on another node of a cluster, or not loaded
        yet."""
        try:
            connection.send_command(*(("GET", self.prefix + "layout") if self._name else ("PING",)))
            connection.read_response()
        except BaseException:
            connection.disconnect()
            raise

    def _primary(self) -> tuple[str, int]:
        address = self._address
        sentinel = Sentinel(
            address.sentinels,
            sentinel_kwargs={
                **address.sentinel_options,
                "socket_timeout": CONNECT_TIMEOUT,
                "socket_connect_timeout": CONNECT_TIMEOUT,
                "retry": Retry(NoBackoff(), 0),
            },
        )
        try:
            host, port = sentinel.discover_master(address.service)
        finally:
            for client in sentinel.sentinels:
                client.close()
        return str(host), int(port)


class Link:
    """A connection that is made when needed, for one thread at a time.

    timeout: seconds to wait for each answer.
    """

    def __init__(self, engine: Engine, timeout: float = CALL_TIMEOUT) -> None:
        self._engine = engine
        self._timeout = timeout
        self._connection: Connection | None = None

    def call(self, *command: Any) -> Any:
        """Call a command and wait for its answer; raises EngineAway."""
        if self._connection is None:
            self._connection = self._engine.connect(self._timeout)
        try:
            self._connection.send_command(*command)
            return self._connection.read_response()
        except (exceptions.RedisError, OSError) as error:
            away = translated(error)
            if away.code not in _HARMLESS:
                self.close()
            raise away from None
        except BaseException:
            # Its answer would be taken for the next one's.
            self.close()
            raise

    def run(self, script: Script, *arguments: Any) -> Any:
        """Run a script with the queue's keys; raises EngineAway."""
        keys = self._engine.keys
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except EngineAway as error:
            if error.code != "NOSCRIPT":
                raise
        return self.call("EVAL", script.text, len(keys), *keys, *arguments)

    def join(self, node: str, about: str) -> None:
        """Make the node a part of the queue, and the queue if there is none; raises StartError for
        a newer layout, and EngineAway."""
        layout = self.run(JOIN, node, about)
        if layout > LAYOUT:
            raise StartError(
                f"the event queue {self._engine.shown} has layout {layout}, made by a newer "
                f"daemonkit; this one knows layouts up to {LAYOUT}"
            )

    def interrupt(self) -> None:
        """Make a call of another thread fail at once."""
        connection = self._connection
        sock = None if connection is None else socket_of(connection)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection; the next call makes another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def socket_of(connection: Connection) -> socket.socket | None:
    """The socket of a connection, None if it is closed; redis-py doesn't offer it."""
    sock: socket.socket | None = connection._sock
    return sock
