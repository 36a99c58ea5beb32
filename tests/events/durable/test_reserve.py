from __future__ import annotations

import errno
import os

import pytest

from daemonkit.events.durable import reserve as reserve_module
from daemonkit.events.durable.reserve import Reserve, free_bytes, probe_space

from .helpers import open_files


def test_space_is_reserved_and_released(path: str) -> None:
    reserve = Reserve(path, 100_000)
    assert reserve.take()
    assert os.stat(path + "-reserve").st_blocks * 512 >= 100_000
    reserve.release()
    assert os.stat(path + "-reserve").st_size == 0
    assert not reserve.take_with(2**50)
    assert reserve.is_held
    reserve.close()


def test_a_closed_reserve_leaves_no_descriptor(path: str) -> None:
    reserve = Reserve(path, 1000)
    assert open_files(path) == [path + "-reserve"]
    reserve.close()

    assert open_files(path) == []


@pytest.mark.parametrize(
    ("free", "before", "size"),
    [(1000, 0, 200), (0, 5000, 5000)],
    ids=["a fifth of a small disk", "on a full disk what it has"],
)
def test_a_reserve_has_the_size_that_the_disk_allows(
    path: str, free: int, before: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        with open(path + "-reserve", "wb") as file:
            file.write(bytes(before))
    monkeypatch.setattr(reserve_module, "free_bytes", lambda path, most: min(most, free))
    reserve = Reserve(path, 100_000)
    reserve.close()

    assert reserve.size == size


def test_free_space_is_bounded_and_found_by_trying(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_bytes(path, 1000) == 1000
    # Where a quota applies.
    monkeypatch.setattr(reserve_module, "probe_space", lambda path, size: size < 500)
    assert free_bytes(path, 1000) == 421


@pytest.mark.parametrize(
    ("number", "fits"),
    [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EFBIG, False), (errno.EIO, True)],
)
def test_only_a_lack_of_space_counts_as_a_full_disk(
    path: str, monkeypatch: pytest.MonkeyPatch, number: int, fits: bool
) -> None:
    def fail(fd: int, offset: int, size: int) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(os, "posix_fallocate", fail)

    assert probe_space(path, 1) is fits
    assert os.listdir(os.path.dirname(path)) == []
