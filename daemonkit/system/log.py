"""The process's logging: one log for each daemon, beside the handlers of the user's program."""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Protocol

from ..exceptions import StartError
from .json_streams import json_line, json_streams
from .log_formatters import FORMATTERS, JsonFormatter, Redact, message
from .log_handlers import StdoutHandler
from .recent import Recent
from .reports import redact_reports

LIBRARY_LEVELS = {
    "asyncio": "INFO",
    "charset_normalizer": "INFO",
    "redis": "INFO",
    "urllib3": "INFO",
    # It warns about every request that waits for a thread.
    "waitress.queue": "ERROR",
}
"""Levels of libraries that log too much."""


class _Route(logging.Filter):
    """Marks a root handler as a daemon's log, and passes the lines that belong there.

    name: the daemon's logger; own_only: no lines of other loggers. A line belongs to the daemon
    that its logger is of, and otherwise to the first daemon that runs.
    """

    def __init__(self, name: str, redact: Redact, *, own_only: bool) -> None:
        super().__init__(name)
        self.redact = redact
        self.own_only = own_only
        self.has_ended = False
        self.level: str = "NOTSET"
        self.sets_level = False
        """Whether its logger's level is set here, and not by the user."""

    def filter(self, record: logging.LogRecord) -> bool:
        routes = [route for _, route in _daemon_logs()]
        # A line that was passed on before its handler was removed may be another daemon's.
        if len(routes) > 1 or self.own_only or self not in routes:
            owners = {route.name for route in routes if super(_Route, route).filter(record)}
            if owners:
                return self.name == max(owners, key=len)
            return self is _process_log()
        return True


def _daemon_logs() -> list[tuple[logging.Handler, _Route]]:
    # Kept where logging keeps them: which handlers there are is the process's affair.
    return [
        (handler, route)
        for handler in logging.getLogger().handlers
        for route in handler.filters
        if isinstance(route, _Route)
    ]


def _process_log() -> _Route | None:
    """What takes the lines of loggers that are no daemon's."""
    routes = [route for _, route in _daemon_logs() if not route.own_only]
    running = [route for route in routes if not route.has_ended]
    return next(iter(running or routes), None)


class LogSettings(Protocol):
    """What of a daemon's settings is about its log: the level, a file in place of stdout, and the
    format, `text` or `json`."""

    @property
    def log_level(self) -> str: ...
    @property
    def log_file(self) -> str | None: ...
    @property
    def log_format(self) -> str: ...


@contextmanager
def attached(
    name: str,
    settings: LogSettings,
    redact: Redact,
    recent: Recent | None = None,
    *,
    is_guest: bool = False,
    process: str = "",
) -> Iterator[None]:
    """Give a daemon its log, and the process one if it has none yet.

    name: the daemon's logger; redact: applied to everything that is logged; recent: gets the
    daemon's lines, too; is_guest: the surrounding program has its own log, so only the file and
    `recent` get the daemon's lines; process: which of several it is, for each line. Handlers of
    others are left alone. The process's log remains after the block, until another daemon starts.
    With the format `json`, what the process prints in the block is JSON, too, unless is_guest.
    Raises StartError when the file can't be opened.
    """
    if is_guest and settings.log_file is None:
        # On the daemon's logger, as the root's handlers are the surrounding program's affair.
        with _fed(recent, logging.getLogger(name), logging.Filter(name)):
            yield
        return
    handler = _opened(settings.log_file, redact)
    handler.setFormatter(FORMATTERS[settings.log_format](redact, process))
    route = _Route(name, redact, own_only=is_guest)
    handler.addFilter(route)
    root = logging.getLogger()
    for other, ended in _daemon_logs():
        if ended.has_ended:
            _detach(other, ended)
    root.addHandler(handler)
    if not is_guest:
        for library, least in LIBRARY_LEVELS.items():
            if logging.getLogger(library).level == logging.NOTSET:
                logging.getLogger(library).setLevel(least)
        logging.captureWarnings(True)
    is_json = settings.log_format == "json" and not is_guest
    if is_json:
        redact_reports(redact)
    set_level(name, settings.log_level)
    try:
        streams = json_streams(redact) if is_json else nullcontext()
        with streams, _fed(recent, root, route.filter):
            yield
    finally:
        before, route.has_ended = _process_log(), True
        after = _process_log()
        if after is not route:
            _detach(handler, route)
        if after is not None and after is not before:
            root.setLevel(after.level)


@contextmanager
def _fed(recent: Recent | None, logger: logging.Logger, route: Any) -> Iterator[None]:
    """Have a logger's lines that pass the filter `route` kept among the recent ones."""
    if recent is None:
        yield
        return
    recent.addFilter(route)
    logger.addHandler(recent)
    try:
        yield
    finally:
        _remove_handler(logger, recent)
        recent.removeFilter(route)


def _opened(path: str | None, redact: Redact) -> logging.Handler:
    if path is None:
        return StdoutHandler()
    from .log_file import FileHandler  # noqa: PLC0415

    try:
        return FileHandler(path, redact)
    except OSError as error:
        raise StartError(
            f"cannot open the log file {path}: {error.strerror}; see master.log_file"
        ) from None


def _remove_handler(logger: logging.Logger, handler: logging.Handler) -> None:
    # Not in place, as `removeHandler` does it: a thread that is just passing a line on would skip
    # the handler after it.
    with logging._lock:  # type: ignore[attr-defined]
        logger.handlers = [other for other in logger.handlers if other is not handler]


def _detach(handler: logging.Handler, route: _Route) -> None:
    _remove_handler(logging.getLogger(), handler)
    if route.sets_level:
        logging.getLogger(route.name).setLevel(logging.NOTSET)
    handler.close()


def has_log(name: str) -> bool:
    """Whether a daemon has a log of its own; name: its logger."""
    return any(route.name == name and not route.has_ended for _, route in _daemon_logs())


def set_level(name: str, level: str) -> None:
    """Set the least severe level that the log of a daemon gets; name: the daemon's logger.

    That of the process's log is the root logger's. The level of another daemon's own logger is set
    only if the user has not set it. Without a log there is nothing to set.
    """
    logger = logging.getLogger(name)
    routes = [route for _, route in _daemon_logs() if route.name == name and not route.has_ended]
    for route in routes:
        route.level = level
        if route is _process_log():
            logging.getLogger().setLevel(level)
        else:
            route.sets_level = route.sets_level or logger.level == logging.NOTSET
            if route.sets_level:
                logger.setLevel(level)


def write_stderr(line: str) -> None:
    """Write a line to stderr, redacted, if that is possible without blocking; never raises."""
    with suppress(OSError, ValueError):
        for handler, route in _daemon_logs()[:1]:
            line = route.redact(line)
            if isinstance(handler.formatter, JsonFormatter) and not route.own_only:
                text = line.rstrip("\n")
                line = json_line(route.redact, "stderr", logging.ERROR, text) + "\n"
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode("utf-8", "replace"))


def print_error(name: str, error: Exception, log_format: str, redact: Redact) -> None:
    """Print to stderr why a daemon can't run; name: the daemon's."""
    line = redact(f"{name}: {error}")
    if log_format == "json":
        line = json_line(redact, name, logging.CRITICAL, str(error))
    print(line, file=sys.stderr)


def log_safely(
    logger: logging.Logger, level: int, text: str, *arguments: Any, exc_info: Any = None
) -> None:
    """Log a message; if one of the user's handlers or filters raises, write it to stderr."""
    try:
        logger.log(level, text, *arguments, exc_info=exc_info, stacklevel=2)
    except Exception:
        write_stderr(f"{logger.name}: {message(text, arguments)}\n")


def log_always(logger: logging.Logger, level: int, text: str, *arguments: Any) -> None:
    """Do the same whatever the logger's level is."""
    caller = sys._getframe(1)
    place = (caller.f_code.co_filename, caller.f_lineno)
    try:
        logger.handle(
            logger.makeRecord(
                logger.name, level, *place, text, arguments, None, caller.f_code.co_name
            )
        )
    except Exception:
        write_stderr(f"{logger.name}: {message(text, arguments)}\n")
