"""daemonkit: a decorator-driven microframework for long-running daemons."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
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

_MODULES = {
    "Daemon": "app",
    "Event": "types",
    "EventMeta": "types",
    "FailedAttempt": "events.entry",
    "Master": "master",
    "Secret": "config.secrets",
    "Slave": "supervision.slave",
}
"""Where the names are defined that are not exceptions."""
_SUBMODULES = ("app", "exceptions", "master", "slave", "types")
"""Can also be used as attributes, after `import daemonkit` alone."""


def __getattr__(name: str) -> Any:
    # On first use (PEP 562): commands for a running daemon need none of it, and start faster.
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f".{_MODULES.get(name, 'exceptions')}", __name__)
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
