"""The handler that writes the log to stdout."""

from __future__ import annotations

import logging
import sys


class NeverRaises(logging.Handler):
    """Ignores what fails: once its reader is gone, stdout fails with every line."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing."""


class StdoutHandler(NeverRaises, logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stdout; characters that it can't encode are escaped."""

    def __init__(self) -> None:
        # The stand-in's, with which another daemon in this process shows its output as JSON.
        stdout = getattr(sys.stdout, "real", sys.stdout)
        if hasattr(stdout, "reconfigure"):
            stdout.reconfigure(errors="backslashreplace")
        super().__init__(stdout)
