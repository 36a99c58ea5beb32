"""The command `daemonkit`."""

from __future__ import annotations

import sys


def main(prog_name: str | None = None) -> None:
    """Run the command that the process's arguments name; raises SystemExit."""
    if sys.argv[1:2] == ["ping"]:
        from .probe import parse  # noqa: PLC0415

        if (ping := parse(sys.argv[2:])) is not None:
            sys.exit(ping.run_alone())
    from .group import group  # noqa: PLC0415

    group(prog_name=prog_name)
