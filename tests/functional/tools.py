"""What tests need besides Python packages; `sh .ci/venv test` installs all of it."""

from __future__ import annotations

import os
import re
import shutil
from typing import NoReturn

import pytest


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            missing(program)


def need_all_of(line: str) -> None:
    """Need the programs of a line for the shell."""
    need(*re.findall(r"(?:^|\| )(\w+)", line))


def missing(what: str) -> NoReturn:
    """Skip the test, but fail in CI, which must have everything."""
    message = f"there is no {what}: run `sh .ci/venv test`"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
