"""What is kept of an exception that a slave raised."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from ..text import error_text, timestamp


class Location(NamedTuple):
    """A line of source code."""

    file: str
    line: int | None
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}"


class SlaveFailure(NamedTuple):
    """What a slave raised, as one line, when, and where."""

    error: str
    time: datetime
    location: Location | None

    @classmethod
    def of(cls, error: BaseException, work: Callable[..., Any]) -> SlaveFailure:
        """The failure of `work` by `error`, now."""
        try:
            return cls(error_text(error), datetime.now(), locate(error, work))
        # Out of memory, for example: the failure itself must be recorded anyway.
        except BaseException:
            return cls(type(error).__name__, datetime.now(), None)

    def status(self) -> dict[str, Any]:
        """The failure as `/status` shows it."""
        place = "" if self.location is None else str(self.location)
        return {"error": self.error, "time": timestamp(self.time), "place": place}


def locate(error: BaseException, work: Callable[..., Any]) -> Location | None:
    """The deepest line in the file that defines `work`, or else the deepest line of all."""
    code = getattr(inspect.unwrap(work), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if code and frame.filename == code.co_filename]
    for frame in reversed(own or frames):
        return Location(frame.filename, frame.lineno, frame.name)
    return None
