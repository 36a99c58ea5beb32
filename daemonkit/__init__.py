"""daemonkit: a decorator-driven microframework for long-running daemons."""

from ._version import __version__
from .app import Daemon
from .exceptions import (
    BatchTooLarge,
    ConfigError,
    DaemonkitError,
    InvalidEvent,
    PingError,
    QueueFull,
    RegistrationError,
    StartError,
)
from .secret import Secret
from .slave import Slave
from .types import Event, Meta

__all__ = [
    "BatchTooLarge",
    "ConfigError",
    "Daemon",
    "DaemonkitError",
    "Event",
    "InvalidEvent",
    "Meta",
    "PingError",
    "QueueFull",
    "RegistrationError",
    "Secret",
    "Slave",
    "StartError",
    "__version__",
]
