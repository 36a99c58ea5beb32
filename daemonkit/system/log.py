"""Logging to stdout or a file, in columns or in JSON."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from ..exceptions import StartError

Redact = Callable[[str], str]

LIBRARY_LEVELS = {
    "asyncio": "INFO",
    "charset_normalizer": "INFO",
    "urllib3": "INFO",
    # It warns about every request that waits for a thread.
    "waitress.queue": "ERROR",
}
"""Levels of libraries that log too much."""


def write_stderr(line: str) -> None:
    """Write a line to stderr if that is possible without blocking; never raises."""
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "replace"))


def log_safely(
    logger: logging.Logger, level: int, text: str, *arguments: Any, exc_info: Any = None
) -> None:
    """Log a message; if one of the user's handlers or filters raises, write it to stderr."""
    try:
        logger.log(level, text, *arguments, exc_info=exc_info)
    except Exception:
        write_stderr(f"{logger.name}: {text % arguments}\n")


def configure(*, level: str, path: str | None, style: str, redact: Redact) -> None:
    """Set up the process's logging.

    path: the log file, None for stdout; style: `text` or `json`; redact: applied to everything that
    is logged. Raises StartError when the file can't be opened.
    """
    formatter = {"text": ColumnFormatter, "json": JsonFormatter}[style]
    handler: dict[str, Any] = {"()": StdoutHandler, "formatter": "chosen"}
    if path is not None:
        handler = {"()": FileHandler, "formatter": "chosen", "path": path}
    try:
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "formatters": {"chosen": {"()": formatter, "redact": redact}},
                "handlers": {"chosen": handler},
                "loggers": {name: {"level": level} for name, level in LIBRARY_LEVELS.items()},
                "root": {"level": level, "handlers": ["chosen"]},
            }
        )
    except ValueError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise StartError(
            f"cannot open the log file {path}: {cause.strerror}; see master.log_file"
        ) from None
    logging.captureWarnings(True)


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class ColumnFormatter(logging.Formatter):
    """Time, thread, logger, level and message in columns; a name longer than its column is not cut.

    Further lines of a message or traceback are indented, and control characters escaped.
    """

    def __init__(self, redact: Redact = str) -> None:
        super().__init__()
        self._redact = redact

    def formatMessage(self, record: logging.LogRecord) -> str:
        return record.message

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(_escaped, self._redact(super().format(record)))
        # A message from outside must not be able to forge a log line.
        text = text.replace("\n", "\n  ")
        columns = f"{record.threadName:<23} {record.name:<31} {record.levelname:<11}"
        return f"{self.formatTime(record)} {columns} {text}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, thread, message, exception, and any `extra`."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
        "message",
        "asctime",
        "taskName",
        "is_replacement",
    }

    def __init__(self, redact: Redact = str) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            key: self._extra(value)
            for key, value in vars(record).items()
            if key not in self._STANDARD
        }
        stamp = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        fields |= {
            "time": stamp.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "thread": record.threadName,
            "message": self._redact(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = self._redact(self.formatException(record.exc_info))
        if record.stack_info:
            fields["stack"] = self._redact(self.formatStack(record.stack_info))
        return json.dumps(fields)

    def _extra(self, value: Any) -> Any:
        """An `extra` as JSON, or as text if JSON can't represent it."""
        try:
            clean = self._clean(value)
            json.dumps(clean, allow_nan=False)
        except (ValueError, TypeError, RecursionError):
            return self._text(value)
        return clean

    def _clean(self, value: Any) -> Any:
        # Redact before encoding: the redactor doesn't recognize escaped line breaks.
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, dict):
            return {str(key): self._clean(item) for key, item in value.items()}
        return [self._clean(item) for item in value] if isinstance(value, list | tuple) else value

    def _text(self, value: Any) -> str:
        return self._redact(str(value))


class _NeverRaises(logging.Handler):
    """Logs a wrong call without its arguments, which may be secrets."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        # Once its reader is gone, stdout fails with every line.
        if isinstance(error, OSError) or getattr(record, "is_replacement", False):
            return
        line = logging.makeLogRecord({**vars(record), "exc_info": None, "exc_text": None})
        line.msg = "%s (this line of %s:%d could not be formatted: %s)"
        line.args = (str(record.msg), record.filename, record.lineno, type(error).__name__)
        line.is_replacement = True
        self.emit(line)


class StdoutHandler(_NeverRaises, logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stdout; characters that it can't encode are escaped."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        super().__init__(sys.stdout)


class FileHandler(_NeverRaises, WatchedFileHandler):
    """Writes to a file, reopens it after rotation, and recreates a removed folder.

    While the file can't be written, lines go to stderr; the failure and the recovery are reported
    there once.
    """

    def __init__(self, path: str) -> None:
        self._failing = False
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def reopenIfNeeded(self) -> None:
        folder = Path(self.baseFilename).parent
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
        super().reopenIfNeeded()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()
                self._statstream()
            self.stream.write(self.format(record) + self.terminator)
            self.stream.flush()
        except OSError as error:
            self._fall_back(record, error)
        except Exception:
            self.handleError(record)
        else:
            if self._failing:
                self._failing = False
                self._write_to_stderr(f"logging to {self.baseFilename} again")

    def _fall_back(self, record: logging.LogRecord, error: OSError) -> None:
        self._drop_stream()
        if not self._failing:
            self._failing = True
            reason = error.strerror
            text = f"cannot log to {self.baseFilename}: {reason}; logging to stderr meanwhile"
            self._write_to_stderr(text)
        self._write_to_stderr(self.format(record))

    def _drop_stream(self) -> None:
        # Closing a stream writes what is left in its buffer, which fails again.
        stream, self.stream = self.stream, None
        try:
            if stream is not None:
                stream.close()
        except OSError:
            pass

    def _write_to_stderr(self, line: str) -> None:
        try:
            os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            pass
