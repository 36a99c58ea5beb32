from __future__ import annotations

import pytest

from daemonkit import Daemon


@pytest.fixture
def app() -> Daemon:
    return Daemon("app")
