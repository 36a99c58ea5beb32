"""What a slave is: work that runs on its own thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..runtime.heartbeat import Heartbeat, ShutdownEvent
from ..text import timestamp
from ..types import SlaveMaster


class Slave:
    """A worker thread. Subclass it and override `run`, or give a function to `@app.slave`.

    name: also the thread's; master: the daemon; logger: named `master.slave`; shutdown: an Event,
    set when this slave is to stop; started: local time, None before.

    The attributes are set before `__init__` runs, so a subclass may define any `__init__`.
    Each restart makes a new object on a new thread, which also runs `__init__`.
    """

    name: str
    master: SlaveMaster
    logger: logging.Logger
    shutdown: ShutdownEvent
    started: datetime | None = None
    _function: Callable[[Slave], Any] | None = None
    _heartbeat: Heartbeat
    _stop_event: ShutdownEvent
    _run_owned: Callable[..., Slave | None]

    def run(self) -> Any:
        """Do the work until `shutdown` is set; may be `async def`."""
        if self._function is None:
            raise NotImplementedError(f"{type(self).__name__} must override run()")
        return self._function(self)

    def heartbeat(self) -> None:
        """Signal that this slave is alive, see `timeout`; may be called from any thread."""
        self._heartbeat.beat()

    def sleep(self, seconds: float) -> bool:
        """Wait until `seconds` have passed or the slave is to stop; True when it is to stop."""
        return self._stop_event.wait(seconds)

    def run_slave(self, target: Any, *args: Any, **keywords: Any) -> Slave | None:
        """Start a slave that this run owns: it is asked to stop together with this run, or when
        this run ends, and a restart of this slave waits for it. See `Daemon.run_slave`.

        Raises RegistrationError also once this run is to stop or has ended.
        """
        return self._run_owned(target, args, keywords)

    def status(self) -> dict[str, Any]:
        """What `/status` shows of this slave, besides its name and state; may be overridden."""
        return {"name": self.name, "started": timestamp(self.started)}

    def send_event_to_juggler(self, host: str, service: str, status: str, description: str) -> None:
        """Send an event to Juggler; see `Daemon.send_event_to_juggler`."""
        self.master.send_event_to_juggler(host, service, status, description)
