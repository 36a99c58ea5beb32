"""A screen that is drawn again and again, in place."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn, TextIO

from .terminal import discard, encodable

INTERVAL = 2.0
"""Seconds."""
# xterm's control sequences: the alternate screen without a cursor, and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _TO_LINE_S_END, _TO_SCREEN_S_END = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(
    stream: TextIO, draw: Callable[[int, int], Sequence[str]], pause: Callable[[], object]
) -> None:
    """Show the lines of `draw(columns, lines)` until Ctrl-C; pause: called between them."""
    with _own_screen(stream):
        try:
            while True:
                columns, lines = shutil.get_terminal_size()
                show(stream, draw(columns, lines)[:lines])
                pause()
        except KeyboardInterrupt:
            pass


def show(stream: TextIO, lines: Sequence[str]) -> None:
    """Replace the screen's content in one write, each line in its place: nothing flickers."""
    text = f"{_TO_LINE_S_END}\r\n".join(lines)
    whole = _HOME + text + _TO_LINE_S_END + _TO_SCREEN_S_END
    stream.write(encodable(whole, stream.encoding))
    stream.flush()


@contextmanager
def _own_screen(stream: TextIO) -> Iterator[None]:
    """Show another screen than the shell's, and that one again at the end, whatever ends it."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    stream.write(_ENTER)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        try:
            stream.write(_LEAVE)
            stream.flush()
        except OSError:
            # The terminal is gone.
            discard(stream)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
