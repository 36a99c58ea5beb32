"""The original's module `slave`."""

from __future__ import annotations

from .supervision.slave import Slave

__all__ = ["Slave"]
