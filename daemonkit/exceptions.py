"""The errors daemonkit raises; each class carries the exit status it leads to."""

from __future__ import annotations

import os


class DaemonkitError(Exception):
    """The base of every error daemonkit raises on purpose."""

    exit_status = 1


class RegistrationError(DaemonkitError):
    """Something was registered too late, twice, or isn't what the registrar accepts."""

    exit_status = 2


class LoadError(DaemonkitError):
    """The `module:attr` given on the command line doesn't lead to a daemon.

    traceback: the text of the traceback when the user's own module raised, else "".
    """

    exit_status = 2

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class ConfigError(DaemonkitError):
    """The configuration is wrong; the text names the file and, where known, the line."""

    exit_status = 2

    def __init__(
        self,
        message: str,
        file: str | os.PathLike[str] | None = None,
        line: int | None = None,
    ) -> None:
        place = "" if file is None else os.fspath(file) + (f":{line}" if line else "") + ": "
        super().__init__(place + message)


class StartError(DaemonkitError):
    """The daemon could not start: address in use, no permission, a missing resource."""

    exit_status = 3


def missing_extra(error: ImportError) -> StartError:
    """The error for a queue in Redis without the packages that it needs."""
    return StartError(
        f"the event queue is in Redis, which needs a package that is missing ({error.name}): "
        "pip install 'daemonkit[redis]'"
    )


class InvalidEvent(DaemonkitError, ValueError):
    """An event that is not JSON as defined by RFC 8259."""


class EventTooLarge(InvalidEvent):
    """An event of more bytes than `max_event_size`, or of too many values."""


class Unavailable(DaemonkitError):
    """Not accepting work now: the daemon is starting or stopping, or the disk is not available.

    retry_after: seconds after which to try again.
    """

    def __init__(self, message: str = "Not available now", retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(Unavailable):
    """The event queue, or its disk, has no room for an event."""


class BatchTooLarge(DaemonkitError):
    """More events at once than the queue could hold even when it is empty."""


class Done(DaemonkitError):
    """Raised by a slave, also in `__init__`, that has done its work: it is finished, and not
    restarted whatever its policy. The text, if any, is logged."""


class PingError(DaemonkitError):
    """Raised by a health check: `GET /ping` answers `code` with `message`.

    Raises ValueError for a code outside 400..599, which would not say that something is wrong.
    """

    def __init__(self, message: object, code: int = 503) -> None:
        if isinstance(code, bool) or not isinstance(code, int) or not 400 <= code <= 599:
            raise ValueError(
                f"a PingError's code must be an int 400..599, not {code!r} ({type(code).__name__})"
            )
        super().__init__(message)
        # Often it is the exception that the check caught.
        self.message = str(message)
        self.code = code
