"""The handler that writes the log to a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path

from .log_formatters import JsonFormatter
from .log_handlers import NeverRaises


class FileHandler(NeverRaises, WatchedFileHandler):
    """Writes to a file, reopens it after rotation, and recreates a removed folder.

    While the file can't be written, lines go to stderr; the failure and the recovery are reported
    there once. redact: applied to these reports.
    """

    def __init__(self, path: str, redact: Callable[[str], str] = str) -> None:
        self._failing = False
        self._redact = redact
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
                self._report(f"logging to {self.baseFilename} again")

    def _fall_back(self, record: logging.LogRecord, error: OSError) -> None:
        self._drop_stream()
        if not self._failing:
            self._failing = True
            reason = error.strerror
            self._report(
                f"cannot log to {self.baseFilename}: {reason}; logging to stderr meanwhile"
            )
        self._write_to_stderr(self.format(record))

    def _drop_stream(self) -> None:
        # Closing a stream writes what is left in its buffer, which fails again.
        stream, self.stream = self.stream, None
        try:
            if stream is not None:
                stream.close()
        except OSError:
            pass

    def _report(self, text: str) -> None:
        line = self._redact(text)
        if isinstance(self.formatter, JsonFormatter):
            line = self.format(logging.LogRecord("stderr", logging.ERROR, "", 0, text, None, None))
        self._write_to_stderr(line)

    def _write_to_stderr(self, line: str) -> None:
        try:
            os.write(2, line.encode("utf-8", "backslashreplace") + b"\n")
        except OSError:
            pass
