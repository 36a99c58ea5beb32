"""The original's module `master`: `Master` is another name for `Daemon`."""

from __future__ import annotations

from .app import Daemon

Master = Daemon

__all__ = ["Daemon", "Master"]
