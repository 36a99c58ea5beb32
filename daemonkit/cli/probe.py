"""What `daemonkit ping` does, without Click, which takes as long to import as all the rest."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..exceptions import DaemonkitError
from .target import Target
from .terminal import discard, encodable, printable

TIMEOUT = 5.0
"""Seconds."""
LONGEST = 8000
"""Characters of the answer that are shown."""
_OPTIONS = {"--timeout": "timeout", "--token-file": "token_file"}


class Ping(NamedTuple):
    """A health check to ask for."""

    target: Target
    timeout: float = TIMEOUT

    def run(self) -> int:
        """Print the answer, and return the exit status; raises DaemonkitError."""
        client = self.target.client(None, self.timeout)
        try:
            answer = client.get("/ping")
        finally:
            client.close()
        _print(printable(answer.text[:LONGEST].rstrip("\n"), keep="\n"))
        if answer.status == 200:
            return 0
        _report(f"{client.address.text} answered {answer.status} {answer.reason}")
        return 1

    def run_alone(self) -> int:
        """The same as the whole of a process: also reports errors."""
        try:
            return self.run()
        except DaemonkitError as error:
            _report(str(error))
            return error.exit_status
        except KeyboardInterrupt:
            return 130


def parse(arguments: Sequence[str]) -> Ping | None:
    """Read plain arguments; None for any others, which are left to Click.

    So is --config: it takes much longer than Click.
    """
    values: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            option, value = "url", word
        elif option in _OPTIONS:
            option, value = _OPTIONS[option], value if equals else next(words, "")
        else:
            return None
        if option in values or not value:
            return None
        values[option] = value
    timeout = seconds(values.pop("timeout", str(TIMEOUT)))
    return None if timeout is None else Ping(Target(**values), timeout)


def seconds(text: str) -> float | None:
    """A positive number of seconds, None if the text isn't one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 < number < math.inf else None


def _print(text: str) -> None:
    if sys.stdout is None:
        return
    try:
        print(encodable(text, sys.stdout.encoding), flush=True)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            _report(f"cannot write the output: {error.strerror}")
        discard(sys.stdout)


def _report(text: str) -> None:
    print(f"daemonkit: {printable(text)}", file=sys.stderr)
