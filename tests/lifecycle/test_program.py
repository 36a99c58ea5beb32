from __future__ import annotations

import logging
from typing import Any

import pytest

from daemonkit.lifecycle.program import call_hook

LOGGER = logging.getLogger("app")


def test_a_hook_that_returns_is_no_error() -> None:
    calls: list[int] = []

    assert call_hook(lambda: calls.append(1), "start", LOGGER) is None
    assert calls == [1]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_whatever_a_hook_raises_is_logged_and_returned(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def close() -> None:
        raise error

    assert call_hook(close, "stop", LOGGER) is error
    assert caplog.messages == ["The stop hook close failed"]


def test_a_hook_that_left_its_work_undone_has_failed() -> None:
    def numbers() -> Any:
        return (n for n in [1])

    error = call_hook(numbers, "reload", LOGGER)

    assert isinstance(error, TypeError)
    assert "generator" in str(error)
