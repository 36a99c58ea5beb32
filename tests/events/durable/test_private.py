from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from daemonkit.events.durable.private import create_private, open_private


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277, 0o777])
@pytest.mark.parametrize("open_file", [open_private, create_private])
def test_a_new_file_is_its_owner_s_whatever_the_umask(
    tmp_path: Path, open_file: Callable[[str], int], umask: int
) -> None:
    before = os.umask(umask)
    try:
        fd = open_file(str(tmp_path / "x"))
    finally:
        os.umask(before)

    assert os.fstat(fd).st_mode & 0o777 == 0o600
    assert os.write(fd, b"x") == 1
    os.close(fd)


def test_an_existing_file_keeps_its_mode_and_content(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text("abc")
    file.chmod(0o660)
    fd = open_private(str(file))

    assert os.read(fd, 10) == b"abc"
    assert os.fstat(fd).st_mode & 0o777 == 0o660
    os.close(fd)
    with pytest.raises(FileExistsError):
        create_private(str(file))
