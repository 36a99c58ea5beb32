"""Log lines in columns and in JSON; whatever is logged, there is a line, and it is redacted."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from functools import cache
from typing import Any

from ..text import cannot_show, shown, traceback_text, unique_keys
from .handling import handled_now

Redact = Callable[[str], str]

_FORGING = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\xad\u180e\u200b-\u200d\u2060-\u2064\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # bidirectional controls
    "\u2028\u2029"  # separators of lines and paragraphs
)


@cache
def _pattern(others: str) -> re.Pattern[str]:
    # Compiled when it is needed, since it takes a millisecond.
    return re.compile(f"[{others}{_FORGING}]")


def escaped(text: str, others: str = "") -> str:
    """The text, with what could forge a line escaped, and other characters that are given."""
    # Nearly every text is printable, which is faster to find out.
    return text if text.isprintable() else _pattern(others).sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def message(text: object, arguments: Any, where: str = "") -> str:
    """A log call's message; a placeholder stands for what raises when it is shown.

    where: names the call if its arguments don't fit; they are left out, as they may be secrets.
    """
    template: str = shown(text)
    if not arguments:
        return template
    try:
        return str(template % arguments)
    # `__str__` and the like are the user's, and may raise anything.
    except BaseException as error:
        failure = type(error).__name__
    for fitting in _placeholders(arguments):
        with suppress(BaseException):
            return str(template % fitting)
    return f"{template} (this line{where} could not be formatted: {failure})"


def _placeholders(arguments: Any) -> Iterator[Any]:
    """The arguments, with placeholders for those that can't be shown."""
    if isinstance(arguments, Mapping):
        yield {key: _safe(value) for key, value in arguments.items()}
        # `%s` of a mapping as the only argument.
        yield (shown(arguments),)
    else:
        yield tuple(map(_safe, arguments))


def _safe(value: Any) -> Any:
    """The value, or a placeholder if it can't be shown."""
    try:
        str(value), repr(value)
    except BaseException as error:
        return cannot_show(value, error)
    return value


class _Formatter(logging.Formatter):
    """What both formats have in common."""

    def __init__(self, redact: Redact = str, process: str = "") -> None:
        super().__init__()
        self._redact = redact
        self._process = process
        """Which of several it is, if there are several."""

    def _message(self, record: logging.LogRecord) -> str:
        where = f" of {record.filename}:{record.lineno}"
        return self._redact(message(record.msg, record.args, where))

    def _traceback(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[1] is not None:
            return traceback_text(record.exc_info[1], self._redact, record.exc_info[2]).rstrip("\n")
        # A record from another process, or by `exc_info=True` without an exception.
        return self._redact(record.exc_text or "")

    def _stack(self, record: logging.LogRecord) -> str:
        return self._redact(record.stack_info or "")


class ColumnFormatter(_Formatter):
    """Time, thread, logger, level and message in columns; a name longer than its column is not cut.

    Further lines of a message or traceback are indented, and escaped is whatever could forge a line
    or change how it is displayed.
    """

    def format(self, record: logging.LogRecord) -> str:
        parts = (self._message(record), self._traceback(record), self._stack(record))
        # A message from outside must not be able to forge a log line.
        text = escaped("\n".join(filter(None, parts)).rstrip("\n"))
        if (handled := handled_now()) is not None:
            line, *more = text.split("\n", 1)
            text = "\n".join([line + self._redact(handled.suffix()), *more])
        text = text.replace("\n", "\n  ")
        thread = f"{self._process} {shown(record.threadName)}".lstrip()
        thread, name, level = map(self._column, (thread, record.name, record.levelname))
        return f"{self.formatTime(record)} {thread:<23} {name:<31} {level:<11} {text}"

    def _column(self, text: object) -> str:
        return escaped(self._redact(shown(text)), "\t\n")


class JsonFormatter(_Formatter):
    """One JSON object a line: time, level, logger, thread, message, exception, the event that is
    being handled, which of several processes it is, and any `extra`."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        handled = handled_now()
        extras: list[tuple[str, Any]] = []
        if handled is not None:
            extras += handled.fields().items()
        extras += vars(record).items()
        fields = unique_keys(
            (self._text(key), self._extra(value))
            for key, value in extras
            if key not in self._STANDARD
        )
        stamp = datetime.fromtimestamp(record.created, timezone.utc).astimezone()
        fields |= {
            "time": stamp.isoformat(timespec="milliseconds"),
            "level": self._text(record.levelname),
            "logger": self._text(record.name),
            "thread": self._text(record.threadName),
            "message": self._message(record),
        }
        if self._process:
            fields["process"] = self._process
        if exception := self._traceback(record):
            fields["exception"] = exception
        if stack := self._stack(record):
            fields["stack"] = stack
        return json.dumps(fields)

    def _extra(self, value: Any) -> Any:
        """An `extra` as JSON, or as text if JSON can't represent it."""
        try:
            clean = self._clean(value)
            json.dumps(clean, allow_nan=False)
        # A mapping's methods may be the user's, and may raise anything.
        except BaseException:
            return self._text(value)
        return clean

    def _clean(self, value: Any) -> Any:
        # Redact before encoding: line breaks are then as they were.
        if isinstance(value, dict):
            return unique_keys((self._text(key), self._clean(item)) for key, item in value.items())
        if isinstance(value, list | tuple):
            return [self._clean(item) for item in value]
        if value is None or isinstance(value, bool):
            return value
        text = self._text(value)
        # A number may be a secret, or have one in it.
        return value if isinstance(value, int | float) and text == str(value) else text

    def _text(self, value: Any) -> str:
        return self._redact(shown(value))


FORMATTERS = {"text": ColumnFormatter, "json": JsonFormatter}
