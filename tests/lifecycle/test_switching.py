from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from daemonkit.config.defaults import Settings
from daemonkit.lifecycle.switching import PYTHON_DEFAULT, set_switch_interval

OURS = Settings().switch_interval


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize(
    ("program_s", "configured", "expected"),
    [
        (PYTHON_DEFAULT, OURS, OURS),
        (PYTHON_DEFAULT, 0.002, 0.002),
        (0.02, OURS, 0.02),
        (0.02, 0.002, 0.002),
    ],
)
def test_the_program_s_interval_is_kept_unless_one_is_configured(
    program_s: float, configured: float, expected: float
) -> None:
    sys.setswitchinterval(program_s)
    set_switch_interval(configured)

    assert sys.getswitchinterval() == pytest.approx(expected)
