from __future__ import annotations

import pytest

from daemonkit.cli.target import TOKEN_VARIABLE, URL_VARIABLE


@pytest.fixture(autouse=True)
def _no_daemon_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL_VARIABLE, TOKEN_VARIABLE, "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
