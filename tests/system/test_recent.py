from __future__ import annotations

import gc
import logging
import re
import weakref
from collections.abc import Iterator

import pytest

from daemonkit.system import log
from daemonkit.system.handling import Handled, Handling
from daemonkit.system.recent import KEPT, LONGEST_MESSAGE, Recent

from .records import hide, record


@pytest.fixture
def recent() -> Recent:
    return Recent(hide)


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of its own, without handlers above it."""
    logger = logging.getLogger("test.recent")
    logger.propagate = False
    yield logger
    logger.handlers.clear()
    logger.propagate = True


class Failure(ValueError):
    """Unlike those built in, it can be referred to weakly."""


def failure(text: str) -> Failure:
    try:
        raise Failure(text)
    except Failure as error:
        return error


def test_warnings_and_errors_are_kept_as_texts(recent: Recent, logger: logging.Logger) -> None:
    logger.addHandler(recent)
    logger.info("not this")
    logger.warning("say %s", "hush\x1b")
    logger.error("failed", exc_info=failure("hush"))

    warning, error = recent.shown()
    place = re.escape(__file__) + r":\d+"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", warning.pop("time"))
    assert re.fullmatch(place, warning.pop("place"))
    assert warning == {
        "level": "WARNING",
        "logger": "test.recent",
        "message": "say *\\x1b",
        "exception": None,
    }
    assert (error["level"], error["exception"]) == ("ERROR", "Failure: *")
    raised = failure("").__traceback__
    assert raised is not None
    assert error["place"] == f"{__file__}:{raised.tb_lineno}"


def test_the_last_ones_are_kept_the_oldest_first(recent: Recent) -> None:
    for number in range(KEPT + 5):
        recent.handle(record(str(number), levelno=logging.WARNING))

    assert [line["message"] for line in recent.shown()] == [
        str(number) for number in range(5, KEPT + 5)
    ]


def test_texts_are_bounded_and_half_a_secret_is_hidden() -> None:
    recent = Recent(lambda text: text.replace("hu...", "*..."))
    recent.handle(record("x" * (4 * LONGEST_MESSAGE - 2) + "hush", levelno=logging.ERROR))
    recent.handle(
        record("\ud800", levelno=logging.ERROR, exc_info=(None, failure("y" * 9999), None))
    )
    long, other = recent.shown()

    assert long["message"] == "x" * (LONGEST_MESSAGE - 3) + "..."
    assert other["message"] == "\\ud800"
    assert len(other["exception"]) == LONGEST_MESSAGE


def test_an_argument_that_can_not_be_shown_leaves_a_placeholder(recent: Recent) -> None:
    class Broken:
        def __str__(self) -> str:
            raise KeyError

    recent.handle(record("%s", Broken(), levelno=logging.ERROR))

    assert recent.shown()[0]["message"] == "(Broken that can't be shown: KeyError)"


def test_no_exception_is_kept_alive(recent: Recent) -> None:
    error = failure("x")
    gone = weakref.ref(error)
    recent.handle(record("failed", levelno=logging.ERROR, exc_info=(ValueError, error, None)))
    del error
    gc.collect()

    assert gone() is None


def test_what_is_shown_is_a_copy(recent: Recent) -> None:
    recent.handle(record("one", levelno=logging.ERROR))
    recent.shown()[0]["message"] = "changed"

    assert recent.shown()[0]["message"] == "one"


def test_a_line_that_no_other_handler_takes_still_goes_to_stderr(
    recent: Recent, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    second = Recent()
    # Without pytest's own.
    logger.handlers[:] = [recent, second]
    logger.warning("alone")
    logger.addHandler(logging.NullHandler())
    logger.warning("not alone")

    assert capsys.readouterr().err == "alone\n"
    assert len(recent.shown()) == len(second.shown()) == 2


def test_lines_about_events_can_be_shown_without_what_they_quote() -> None:
    class Call(Handling):
        def describe(self) -> Handled:
            return Handled(1, 1, None)

    recent, call = Recent(), Call()
    logger = logging.Logger("app")
    logger.addHandler(recent)
    try:
        raise ValueError("an order")
    except ValueError:
        logger.exception("The event handler failed on the event %s", "an order")
    logger.warning("The event handler is stalled: running for 5 s on %s", "an order")
    call.attach()
    call.taken = "an order"
    logger.warning("bad: %s", "an order")
    call.pause()
    logger.warning("no event: %s", "a disk")

    hidden = [(line["message"], line["exception"]) for line in recent.shown(whole=False)]
    about = "(about an event: shown if `read` needs a token)"
    assert hidden == [
        (f"The event handler failed {about}", "ValueError"),
        (f"The event handler is stalled {about}", None),
        (about, None),
        ("no event: a disk", None),
    ]
    assert ["an order" in line["message"] for line in recent.shown()] == [True, True, True, False]


def test_a_record_that_can_t_be_kept_harms_nobody(
    recent: Recent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    odd = record("milliseconds")
    odd.created = 1.8e12
    recent.handle(odd)
    recent.handle(record("good"))

    assert [line["message"] for line in recent.shown()] == ["good"]


def test_a_line_of_daemonkit_s_own_has_no_place(recent: Recent) -> None:
    own = record("own")
    own.pathname = log.__file__
    recent.handle(own)

    assert recent.shown()[0]["place"] == ""
