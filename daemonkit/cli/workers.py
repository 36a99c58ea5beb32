"""`daemonkit run --workers`: several processes of a daemon."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..app import Daemon
from ..config.access import unix_path
from ..config.checks import is_address
from ..config.defaults import Settings
from ..config.secrets import redact
from ..exceptions import ConfigError, DaemonkitError
from ..lifecycle.workers import Workers
from ..system import log
from .options import report_error


def run_workers(daemon: Daemon, count: int, command: Sequence[str]) -> int:
    """Run so many processes with this command until they are asked to stop; returns the exit
    status."""
    try:
        settings = daemon._config.start_settings()
        _check(settings)
        with log.attached(daemon.name, settings, redact, daemon._assembly.recent):
            return Workers(count, command, settings, daemon.logger, os.environ).run()
    except DaemonkitError as error:
        report_error(error)
        return error.exit_status


def _check(settings: Settings) -> None:
    queue = settings.queue
    if queue is None or not is_address(queue):
        where = "in memory" if queue is None else f"the file {queue}"
        raise ConfigError(
            f"--workers needs a queue that processes can share, and this one is {where}, which is "
            "one process's own: set master.queue to a redis:// address"
        )
    for name, address in (("host", settings.host), ("admin", settings.admin)):
        if address is not None and unix_path(address) is not None:
            raise ConfigError(
                f"--workers needs a TCP port, which the kernel shares among processes, but "
                f"master.{name} is a Unix socket"
            )
