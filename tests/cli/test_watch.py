from __future__ import annotations

import io
import signal

import pytest

from daemonkit.cli.watch import show, watch

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Stream:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "2")
    return Stream()


class Stream(io.StringIO):
    """Counts its writes, each of which the terminal may show at once."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_each_screen_replaces_the_last_one_in_one_write() -> None:
    stream = Stream()
    show(stream, ["a", "b"])

    assert stream.getvalue() == "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J"
    assert stream.writes == 1


def test_it_is_drawn_until_ctrl_c_and_the_shell_s_screen_comes_back(terminal: Stream) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(columns: int, lines: int) -> list[str]:
        drawn.append((columns, lines))
        return [f"{len(drawn)}", "b", "is cut"]

    def pause() -> None:
        if len(drawn) == 2:
            raise KeyboardInterrupt

    watch(terminal, draw, pause)

    assert drawn == [(80, 2), (80, 2)]
    screens = "".join(f"\x1b[H{n}\x1b[K\r\nb\x1b[K\x1b[J" for n in (1, 2))
    assert terminal.getvalue() == ENTER + screens + LEAVE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_also_brings_it_back(terminal: Stream, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as caught:
        watch(terminal, lambda *_: ["a"], lambda: signal.raise_signal(number))

    assert caught.value.code == 128 + number
    assert terminal.getvalue().endswith(LEAVE)
    assert signal.getsignal(number) == before


def test_an_error_also_brings_it_back(terminal: Stream) -> None:
    with pytest.raises(ZeroDivisionError):
        watch(terminal, lambda *_: ["a"], lambda: 1 / 0)

    assert terminal.getvalue().endswith(LEAVE)
