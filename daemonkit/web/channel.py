"""One connection: when it is read, who sends on it, how it is closed; where waitress is wrong."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected, HTTPChannel

from ..system.sockets import format_address, unacknowledged
from .fast_lane import LINE
from .request import ErrorTask, Parser, RequestTimeout, Task

SEND_AT_ONCE = 1024 * 1024
"""Bytes on one connection between two looks at the others."""
LINGER = 2.0
"""Seconds to go on reading after a refusal, so that a client that still sends gets to read it."""


class Channel(HTTPChannel):
    """One connection."""

    task_class = Task
    error_task_class = ErrorTask
    parser_class = Parser

    request: Any
    partial = b""
    """What has come of a request that the lane has begun to read, and waitress's parser has not."""
    is_owed = False
    """Whether the lane has taken an event, and not yet answered."""
    gathered: list[bytes] | None = None
    """While it is a list, what is written is collected there."""
    _in_flight = 0
    _partial_began = 0.0
    _reads_paused = False
    _lingers = False
    _closes_when_flushed = False
    _answered_and_closing = False

    # Waitress sets this once the last answer is made, on whatever thread made it.
    @property
    def close_when_flushed(self) -> bool:
        """Whether the connection is closed once everything is sent."""
        return self._closes_when_flushed

    @close_when_flushed.setter
    def close_when_flushed(self, value: bool) -> None:
        self._closes_when_flushed = value
        self._answered_and_closing |= value

    # Waitress writes the time of day here, which may be set back.
    @property
    def last_activity(self) -> float:
        """When something was last answered or a request came, in monotonic seconds."""
        return self._last_activity

    @last_activity.setter
    def last_activity(self, _: float) -> None:
        self._last_activity = time.monotonic()

    @property
    def peer(self) -> str:
        """The client's address and port."""
        return format_address(self.addr[0], self.addr[1])

    @property
    def is_busy(self) -> bool:
        """Whether a request is being read or answered."""
        return bool(self.requests or self.total_outbufs_len or self._began is not None)

    def has_unread(self) -> bool:
        """Whether the client has sent something that isn't read yet."""
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    @property
    def _began(self) -> float | None:
        """Since when a request is being read, None while none is."""
        if self.partial:
            return self._partial_began
        request = self.request
        if request is None or not request.is_begun:
            return None
        began: float = request.began
        return began

    def add_channel(self, map: Any = None) -> None:
        super().add_channel(map)
        self.server.poller.look_again(self)

    def del_channel(self, map: Any = None) -> None:
        self.server.poller.forget(self._fileno)
        super().del_channel(map)

    # Reading

    def readable(self) -> bool:
        if self._lingers:
            return True
        if self.will_close or self.close_when_flushed:
            return False
        # Until there is more than may be read, the loop waits for the next request while one is
        # answered, and needn't be woken once the answer is sent.
        self._reads_paused &= self._is_answering
        return not self._reads_paused

    @property
    def _is_answering(self) -> bool:
        return bool(self.requests or self.total_outbufs_len or self.is_owed)

    def _may_read_ahead(self) -> bool:
        """Whether the next request is read while one is answered: a client that sends it at once
        would otherwise cost the loop two more turns. Not for the lane, which answers in order; nor
        at the end, where a client has only stopped sending."""
        if len(self.requests) != 1 or self.total_outbufs_len:
            return False
        try:
            ahead = self.socket.recv(len(LINE), socket.MSG_PEEK)
        except BlockingIOError:
            return False
        return bool(ahead) and (self.server.lane is None or ahead != LINE)

    def handle_read(self) -> None:
        if not self._lingers and self._is_answering and not self._may_read_ahead():
            # In this order: a thread that is done after the second look sees it and wakes the loop.
            self._reads_paused = True
            if self._is_answering:
                return
            self._reads_paused = False
        try:
            data = self.recv(self.adj.recv_bytes)
        except OSError:
            self.handle_close()
            return
        # Reading alone is no sign of life: a request has a deadline of its own.
        if data:
            self.received(data)

    def received(self, data: bytes) -> bool:
        if self._lingers:
            return False
        before, self.partial = self.partial, b""
        data = before + data
        rest = data
        lane = self.server.lane
        if lane is not None and not (
            self.requests
            or self.request
            or self.will_close
            or self.close_when_flushed
            # The long way says that the connection is about to be closed.
            or self.server.draining
        ):
            rest = lane.take(self, data)
        if self.partial and not (before and len(self.partial) == len(data)):
            self._partial_began = time.monotonic()
        taken = not rest or bool(super().received(rest))
        self._note_receiving()
        return taken

    def _note_receiving(self) -> None:
        """Tell the server since when a request is being read."""
        began = self._began if self.connected else None
        receiving = self.server.receiving
        if began != receiving.get(self):
            # At the end of it: the server looks at the oldest first.
            receiving.pop(self, None)
            if began is not None:
                receiving[self] = began

    def time_out(self, seconds: float) -> None:
        """Refuse the request that is being read; it has taken too long."""
        if self.will_close or self.close_when_flushed or self._lingers:
            self.server.receiving.pop(self)
            return
        was_held_up = self._began is not None and self.last_activity > self._began
        if self.requests or self.total_outbufs_len or was_held_up:
            # It isn't read while the one before it is in work, or its answer is not yet sent.
            self._partial_began = time.monotonic()
            if self.request is not None:
                self.request.began = self._partial_began
            self._note_receiving()
            return
        partial, self.partial = self.partial, b""
        super().received(partial)
        with self.requests_lock:
            request = self.request
            if request is not None:
                request.error = RequestTimeout(
                    f"the request was not complete after {seconds:g} s (request_timeout)"
                )
                self.requests.append(request)
                self.request = None
                self.server.timed_out += 1
                self.server.poller.look_again(self)
                self.server.add_task(self)
        self._note_receiving()

    # Sending. Whoever has something to send does so at once, and what the socket doesn't take is
    # left to the loop, which alone goes on with it. The loop never waits for a socket that a thread
    # of the pool is sending on: it would find it writable, turn after turn, and keep that very
    # thread from the interpreter.

    def write_soon(self, data: Any) -> int:
        """Send something on a thread of the pool; it waits while too much is unsent already.

        data: bytes, or a file that waitress has wrapped. Raises ClientDisconnected.
        """
        if self.gathered is not None:
            self.gathered.append(data)
            return len(data)
        if not self.connected:
            raise ClientDisconnected
        if data:
            with self.outbuf_lock:
                self._flush_outbufs_below_high_watermark()
                if not self.connected:
                    raise ClientDisconnected
                left = self._send(data)
            if left:
                self.server.tell(self)
        return len(data)

    def answer(self, data: bytes) -> None:
        """Send an answer that no task has made; for the loop's thread, with no request in work."""
        self._last_activity = time.monotonic()
        self.is_owed = False
        if not self.connected:
            return
        with self.outbuf_lock:
            left = self._send(data)
        if left or self._reads_paused:
            self.server.poller.look_again(self)

    def send_continue(self) -> None:
        self.request.expect_continue = False
        self.sent_continue = True
        with self.outbuf_lock:
            if self.connected:
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.request.completed = False
        # A pool thread does this when it is done with the request before.
        self.server.tell(self)

    def _send(self, data: Any) -> bool:
        """Send what the socket takes; for who has the lock. True when something is left that the
        loop doesn't know of."""
        is_news = not self.total_outbufs_len
        if is_news:
            self._last_activity = time.monotonic()
        if isinstance(data, ReadOnlyFileBasedBuffer):
            self.outbufs += [data, OverflowableBuffer(self.adj.outbuf_overflow)]
            self.current_outbuf_count = 0
            self.total_outbufs_len += len(data)
            return is_news
        if is_news:
            try:
                sent = self.send(data, do_close=False)
            except OSError:
                self.will_close = True
                return True
            if sent == len(data):
                return False
            data = memoryview(data)[sent:]
        # One that has had so much would never give it back.
        if self.current_outbuf_count >= self.adj.outbuf_high_watermark:
            self.outbufs.append(OverflowableBuffer(self.adj.outbuf_overflow))
            self.current_outbuf_count = 0
        self.outbufs[-1].append(data)
        self.current_outbuf_count += len(data)
        self.total_outbufs_len += len(data)
        if is_news:
            self._in_flight = unacknowledged(self.socket)
        return is_news

    def _flush_outbufs_below_high_watermark(self) -> None:
        with self.outbuf_lock:
            while self.connected and self.total_outbufs_len > self.adj.outbuf_high_watermark:
                self.outbuf_lock.wait()

    def handle_write(self) -> None:
        with self.outbuf_lock:
            if self.total_outbufs_len:
                try:
                    self._flush_some()
                except OSError:
                    self.will_close = True
                self._in_flight = unacknowledged(self.socket)
                if self.total_outbufs_len <= self.adj.outbuf_high_watermark:
                    self.outbuf_lock.notify_all()
            if not self.total_outbufs_len and self.outbufs[0].buf is not None:
                # It would keep what it has sent for as long as the connection lives.
                self.outbufs[0].close()
                self.outbufs[0] = OverflowableBuffer(self.adj.outbuf_overflow)
                self.current_outbuf_count = 0
        if self.close_when_flushed and not self.total_outbufs_len:
            self.close_when_flushed = False
            self.will_close = True
        if self.will_close:
            self.handle_close()

    def _flush_some(self, do_close: bool = False) -> bool:
        """Send what is left, but no more at once than lets the others have their turns."""
        before: int = self.total_outbufs_len
        while self.total_outbufs_len and before - self.total_outbufs_len < SEND_AT_ONCE:
            buffer = self.outbufs[0]
            if not len(buffer):
                self.outbufs.pop(0).close()
                continue
            chunk = buffer.get(self.sendbuf_len)
            if not chunk:
                self.server.own_logger.warning(
                    "A file became shorter while it was sent to %s: the connection is closed",
                    self.peer,
                )
                self.will_close = True
                break
            if not (sent := self.send(chunk, do_close)):
                break
            buffer.skip(sent, True)
            self.total_outbufs_len -= sent
        while len(self.outbufs) > 1 and not len(self.outbufs[0]):
            self.outbufs.pop(0).close()
        if has_sent := bool(self.total_outbufs_len < before):
            self._last_activity = time.monotonic()
        return has_sent

    def is_received(self) -> bool:
        """Whether the client has received some of its answer since the last look. The kernel takes
        more from us only when much of what it holds is gone."""
        before, self._in_flight = self._in_flight, unacknowledged(self.socket)
        if self._in_flight < before:
            self._last_activity = time.monotonic()
        return self._in_flight < before

    def service(self) -> None:
        server = self.server
        try:
            super().service()
        finally:
            if (
                self._reads_paused
                or self.close_when_flushed
                or self.will_close
                or server.draining
                or server.looks_for_idle
            ):
                server.tell(self)
        server.task_dispatcher.let_others_go_first()

    def is_last(self, request: Any) -> bool:
        """Whether no other request behind this one has come."""
        return self.requests[-1:] == [request] and self.request is None and not self.partial

    # Closing

    def linger(self) -> None:
        """Let the client read its answers, if it has sent more than was read (else closing would
        reset the connection, and what is under way to the client be lost)."""
        if not self._lingers and self.has_unread():
            self._answered_and_closing = True
            self.handle_close()

    def handle_close(self) -> None:
        if threading.get_ident() != self.server.loop_thread:
            # The loop may be about to wait for this very descriptor.
            self.will_close = True
            self.server.tell(self)
            return
        # Closing with input unread resets the connection, and the answer could be lost with it.
        if self._answered_and_closing and self.connected and not self._lingers:
            self.will_close = self.close_when_flushed = False
            try:
                self.socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            else:
                self._lingers = True
                self.server.lingering[self] = time.monotonic() + LINGER
                self.server.poller.look_again(self)
                return
        self.drop()

    def handle_error(self) -> None:
        self.server.own_logger.exception("A connection failed and is closed")
        self.drop()

    def drop(self) -> None:
        """Close the connection at once, and what is kept in files for it."""
        self.server.lingering.pop(self, None)
        self.server.receiving.pop(self, None)
        super().handle_close()
