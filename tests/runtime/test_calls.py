from __future__ import annotations

import logging
import os
from typing import Any

import pytest

from daemonkit.runtime.calls import call_hook


def test_a_hook_that_returns_is_not_an_error() -> None:
    calls: list[int] = []

    assert call_hook(lambda: calls.append(1), "start", logging.getLogger("app")) is None
    assert calls == [1]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_any_exception_in_a_hook_is_logged_and_returned(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def close() -> None:
        raise error

    assert call_hook(close, "stop", logging.getLogger("app"), about=" badly") is error
    assert caplog.messages == ["The stop hook close failed badly"]


def test_a_hook_that_returns_unrun_work_has_failed() -> None:
    def numbers() -> Any:
        return (n for n in [1])

    error = call_hook(numbers, "reload", logging.getLogger("app"))

    assert isinstance(error, TypeError)
    assert "generator" in str(error)


@pytest.mark.parametrize("error", [None, SystemExit(3)])
def test_a_child_that_a_hook_forks_ends_with_it(error: BaseException | None) -> None:
    children: list[int] = []

    def fork() -> None:
        children.append(os.fork())
        if not children[0] and error is not None:
            raise error

    call_hook(fork, "reload", logging.getLogger("app"))
    if not children[0]:
        # It should not have come here.
        os._exit(9)

    status = os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
    assert status == (0 if error is None else 3)
