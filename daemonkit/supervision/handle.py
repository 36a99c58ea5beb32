"""What `run_slave` returns."""

from __future__ import annotations

from typing import cast

from werkzeug.local import LocalProxy

from .slave import Slave


class Handle:
    """Leads to the Slave of a slave's current run, and after its end to the last one."""

    slave: Slave | None = None

    def proxy(self) -> Slave:
        """Stands for that Slave, over all restarts, as `flask.current_app` does for an app."""
        return cast(Slave, Proxy(lambda: self.slave))


class Proxy(LocalProxy[object]):
    """A LocalProxy that stays the same key of a mapping, and member of a set, over restarts."""

    __slots__ = ()
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__
