"""What the process prints, one JSON object a line: stand-ins for `sys.stdout` and `sys.stderr`."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from ..exceptions import DaemonkitError
from .log_formatters import JsonFormatter
from .log_handlers import StdoutHandler

LONGEST_LINE = 8000
"""Characters after which a line is written that has no end yet."""
LEVELS = {"stdout": logging.INFO, "stderr": logging.ERROR}


def json_line(
    redact: Callable[[str], str], name: str, level: int, text: str, exc_info: Any = None
) -> str:
    """A line like that of a log call, without its line feed; name: the logger's."""
    record = logging.LogRecord(name, level, "", 0, text, None, exc_info)
    return JsonFormatter(redact).format(record)


class JsonStream(io.TextIOBase):
    """A text stream that writes each line as a JSON object to the real one.

    It doesn't log them: the log may be what writes here. A line ends at a line feed, at a flush, or
    after LONGEST_LINE characters; lines without text are left out. Threads don't mix their lines.
    name: stdout or stderr.
    """

    def __init__(self, real: Any, name: str, redact: Callable[[str], str]) -> None:
        self.real = real
        self._name = name
        self._redact = redact
        self._begun: dict[threading.Thread, str] = {}
        """The unfinished line of each thread."""
        self.buffer = _Bytes(self)

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._finish_ended()
        thread = threading.current_thread()
        # Redacted as a whole: a secret may have several lines.
        shown = self._redact(self._begun.pop(thread, "") + text)
        whole, end, rest = shown.rpartition("\n")
        if len(rest) > LONGEST_LINE:
            whole, rest = whole + end + rest, ""
        if rest:
            self._begun[thread] = rest
        self._write_lines(whole)
        return len(text)

    def flush(self) -> None:
        self._write_lines(self._begun.pop(threading.current_thread(), ""))
        self.real.flush()

    def _finish_ended(self) -> None:
        for thread in list(self._begun):
            if not thread.is_alive():
                self._write_lines(self._begun.pop(thread, ""))

    def finish(self) -> None:
        """Write what is unfinished, of all threads."""
        while self._begun:
            self._write_lines(self._begun.popitem()[1])

    def report(self, heading: str, error: BaseException, trace: TracebackType | None) -> None:
        """Write an exception that nobody has caught, as one object."""
        self._write(heading or "Uncaught exception", (type(error), error, trace))

    def _write_lines(self, text: str) -> None:
        for line in text.split("\n"):
            if line.strip():
                self._write(line.rstrip("\r"))

    def _write(self, text: str, exc_info: Any = None) -> None:
        line = json_line(self._redact, self._name, LEVELS[self._name], text, exc_info)
        # In one call, so that lines of other threads don't get into it.
        self.real.write(line + "\n")
        self.real.flush()

    # As the real one is.

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.real.fileno())

    def isatty(self) -> bool:
        return bool(self.real.isatty())

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self.real.encoding)

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        errors: str | None = self.real.errors
        return errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class _Bytes:
    """The stream for bytes, `sys.stdout.buffer`."""

    def __init__(self, text: JsonStream) -> None:
        self._text = text

    def write(self, data: Any) -> int:
        self._text.write(bytes(data).decode(self._text.encoding, "backslashreplace"))
        return len(data)

    def flush(self) -> None:
        self._text.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._text.real.buffer, name)


@contextmanager
def json_streams(redact: Callable[[str], str]) -> Iterator[None]:
    """Have what is written to `sys.stdout` and `sys.stderr` in the block appear as JSON.

    The user's log handlers that write there do so through the stand-ins, too. After an exception
    that nobody expects, they stay: Python is about to report it.
    """
    made = {}
    for name in LEVELS:
        real = getattr(sys, name)
        if real is not None and not isinstance(real, JsonStream):
            made[name] = JsonStream(real, name, redact)
            setattr(sys, name, made[name])
            _redirect(real, made[name])
    is_restored = True
    try:
        yield
    except BaseException as error:
        is_restored = isinstance(error, DaemonkitError | SystemExit)
        raise
    finally:
        for name, stream in made.items():
            stream.finish()
            if is_restored:
                if getattr(sys, name) is stream:
                    setattr(sys, name, stream.real)
                _redirect(stream, stream.real)


def _redirect(stream: Any, to: Any) -> None:
    """Have the user's log handlers that write to a stream write to another."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    for logger in loggers:
        # Placeholders have none.
        for handler in getattr(logger, "handlers", ()):
            if (
                isinstance(handler, logging.StreamHandler)
                and not isinstance(handler, StdoutHandler)
                and handler.stream is stream
            ):
                handler.setStream(to)
