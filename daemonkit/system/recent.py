"""The last warnings and errors of a daemon's log."""

from __future__ import annotations

import logging
import os
import re
from collections import deque
from datetime import datetime
from typing import Any

from ..text import CUT, error_text, plain, shorten, shown, timestamp
from .handling import handled_now
from .log_formatters import Redact, escaped, message

KEPT = 200
"""Lines."""
LONGEST_MESSAGE = 2000
"""Characters that are kept of a message, and of an exception's text."""


ABOUT_EVENTS = ("The event handler", "The dead-letter hook")
"""How lines about events begin that aren't logged while one is handled."""
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
HIDDEN = "(about an event: shown if `read` needs a token)"
_WHAT = r"The (?:event handler|dead-letter hook) (?:failed|is stalled|recovered)"


class Recent(logging.Handler):
    """Keeps what the page and `/status/warnings` show, as texts: no exception is kept alive.

    redact: hides secrets. `log.attached` gives it the lines.
    """

    def __init__(self, redact: Redact = str) -> None:
        super().__init__(logging.WARNING)
        self._redact = redact
        self._lines: deque[tuple[dict[str, Any], bool]] = deque(maxlen=KEPT)
        """And whether each of them may quote an event."""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self._pass_on(record)
        # The record may be another program's, and must not raise where it is logged.
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        is_private = handled_now() is not None or line["message"].startswith(ABOUT_EVENTS)
        self._lines.append((line, is_private))

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        error = record.exc_info[1] if record.exc_info else None
        return {
            "time": timestamp(datetime.fromtimestamp(record.created)),
            "level": self._text(record.levelname),
            "logger": self._text(record.name),
            "message": self._text(message(record.msg, record.args)),
            "exception": None if error is None else self._text(error_text(error, self._redact)),
            "place": self._text(_place(record, error)),
        }

    def shown(self, *, whole: bool = True) -> list[dict[str, Any]]:
        """The last lines, the oldest first: time, level, logger, message, the text of the exception
        or None, and where that was raised or the line was logged.

        whole: otherwise, of lines about events only the type of the exception is shown.
        """
        self.acquire()
        try:
            return [
                _without_contents(line) if is_private and not whole else dict(line)
                for line, is_private in self._lines
            ]
        finally:
            self.release()

    def _text(self, value: object) -> str:
        # Cut with a mark before it is redacted, too, as it may be very long.
        text = self._redact(plain(shorten(shown(value), 4 * LONGEST_MESSAGE)))
        return shorten(escaped(text), LONGEST_MESSAGE - len(CUT))

    def _pass_on(self, record: logging.LogRecord) -> None:
        """Write what Python would have written without this handler: a line that no handler takes
        goes to stderr."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        handlers: list[logging.Handler] = []
        while logger is not None:
            handlers += logger.handlers
            logger = logger.parent if logger.propagate else None
        last = logging.lastResort
        is_alone = handlers[:1] == [self] and all(isinstance(h, Recent) for h in handlers)
        if is_alone and last is not None and record.levelno >= last.level:
            last.handle(record)


def _without_contents(line: dict[str, Any]) -> dict[str, Any]:
    error: str | None = line["exception"]
    what = re.match(_WHAT, line["message"])
    return {
        **line,
        "message": f"{what[0]} {HIDDEN}" if what else HIDDEN,
        "exception": error and error.partition(":")[0],
    }


def _place(record: logging.LogRecord, error: BaseException | None) -> str:
    # Where daemonkit itself has logged something says nothing.
    if error is None and record.pathname.startswith(_PACKAGE):
        return ""
    file, line = record.pathname, record.lineno
    trace = None if error is None else error.__traceback__
    while trace is not None:
        file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}"
