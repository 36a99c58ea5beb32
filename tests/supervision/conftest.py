from __future__ import annotations

import pytest

from daemonkit import Daemon

from .slaves import Recorded


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")


@pytest.fixture
def slaves(app: Daemon) -> Recorded:
    return Recorded(app)
