"""What Python itself reports on stderr, as it reports it, but redacted."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from ..text import traceback_text
from .json_streams import JsonStream

_FORMAT_WARNING = warnings.formatwarning


def redact_reports(redact: Callable[[str], str]) -> None:
    """Redact what Python reports from now on; hooks that the user's program has set are left alone.

    Covers exceptions in the main thread, in other threads, and where they can't be raised, such as
    in `__del__`; warnings; and what is logged before there is a handler.
    """
    hooks = _Hooks(redact)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = hooks.main
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = hooks.thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = hooks.unraisable
    if warnings.formatwarning is _FORMAT_WARNING:
        warnings.formatwarning = hooks.warning
    if logging.lastResort is not None and logging.lastResort.formatter is None:
        logging.lastResort.setFormatter(_Redacted(redact))


class _Redacted(logging.Formatter):
    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


class _Hooks:
    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def main(
        self, _kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        """See sys.excepthook."""
        self._write("", error, trace)

    def thread(self, arguments: Any) -> None:
        """See threading.excepthook."""
        if arguments.exc_type is not SystemExit:
            name = arguments.thread.name if arguments.thread else threading.get_ident()
            self._write(
                f"Exception in thread {name}:\n", arguments.exc_value, arguments.exc_traceback
            )

    def unraisable(self, arguments: Any) -> None:
        """See sys.unraisablehook."""
        what = arguments.err_msg or "Exception ignored in"
        try:
            where = repr(arguments.object)
        except BaseException:
            where = "<object repr() failed>"
        text = f"{what}: {where}\n" if arguments.object is not None else f"{what}:\n"
        self._write(text, arguments.exc_value, arguments.exc_traceback)

    def warning(self, *arguments: Any, **more: Any) -> str:
        """See warnings.formatwarning."""
        return self._redact(_FORMAT_WARNING(*arguments, **more))

    def _write(self, heading: str, error: BaseException, trace: TracebackType | None) -> None:
        # As in Python's own hooks: stderr may be missing or closed.
        with suppress(Exception):
            if isinstance(sys.stderr, JsonStream):
                sys.stderr.report(heading.rstrip("\n:"), error, trace)
                return
            sys.stderr.write(self._redact(heading) + traceback_text(error, self._redact, trace))
            sys.stderr.flush()
