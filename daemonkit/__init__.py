"""daemonkit: a decorator-driven microframework for long-running daemons."""

from ._version import __version__
from .app import Daemon
from .config.secrets import Secret
from .events.entry import FailedAttempt
from .exceptions import (
    BatchTooLarge,
    ConfigError,
    DaemonkitError,
    Done,
    EventTooLarge,
    InvalidEvent,
    PingError,
    QueueFull,
    RegistrationError,
    StartError,
    Unavailable,
)
from .master import Master
from .supervision.slave import Slave
from .types import Event, EventMeta

__all__ = [
    "BatchTooLarge",
    "ConfigError",
    "Daemon",
    "DaemonkitError",
    "Done",
    "Event",
    "EventMeta",
    "EventTooLarge",
    "FailedAttempt",
    "InvalidEvent",
    "Master",
    "PingError",
    "QueueFull",
    "RegistrationError",
    "Secret",
    "Slave",
    "StartError",
    "Unavailable",
    "__version__",
]
