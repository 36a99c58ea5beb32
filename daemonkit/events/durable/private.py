"""Files that only their owner may read, whatever the umask: they have events in them."""

from __future__ import annotations

import os
from contextlib import suppress

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def open_private(path: str) -> int:
    """Open a file, or create it; returns its descriptor."""
    try:
        return create_private(path)
    except FileExistsError:
        return os.open(path, _FLAGS, 0o600)


def create_private(path: str) -> int:
    """Create a file and return its descriptor; raises FileExistsError."""
    fd = os.open(path, _FLAGS | os.O_EXCL, 0o600)
    # The umask may have taken the owner's rights, too. Not every file system has any.
    with suppress(OSError):
        os.fchmod(fd, 0o600)
    return fd
