"""`POST /control/VERB`: what a request may ask for, and the form of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from ..config.checks import DEFAULT_LEVEL, LEVEL_TIME, LEVELS, Check, one_of
from ..events.codec import decode
from ..text import describe

MAX_BODY = 64 * 1024
"""Bytes in the body of a request to /control."""
MOST_IDS = 1000


class Answer(NamedTuple):
    """What came of a request; more: further fields of the envelope."""

    code: int
    message: Any
    more: Mapping[str, Any] = {}

    @property
    def is_ok(self) -> bool:
        return self.code == 200


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not value or len(value) > 1000:
        raise ValueError
    return value


def _true(value: Any) -> bool:
    if value is not True:
        raise ValueError
    return True


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError
    return value


def _ids(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise TypeError
    if not 0 < len(value) <= MOST_IDS:
        raise ValueError
    return list(map(_id, value))


_TEXT = Check("a string of 1..1000 characters", _text)
_TRUE = Check("true", _true)
_STATE = one_of("dead", "retrying", fold=str.lower)
_WHICH = ({"ids": "[ID, ...]"}, {"all": "true"})
_FILTER = {"state": _STATE, "error": _TEXT}

_CHECKS: dict[str, Check[Any]] = {
    "slave": _TEXT,
    "events": _TRUE,
    "id": Check("a number", _id),
    "ids": Check(f"a list of 1..{MOST_IDS} numbers", _ids),
    "all": _TRUE,
    "level": one_of(*LEVELS, DEFAULT_LEVEL, fold=str.upper),
    "logger": _TEXT,
    "for": LEVEL_TIME,
    **_FILTER,
}


class Verb(NamedTuple):
    """What a request may have in its body.

    forms: the fields that it must have, with what stands for their values in messages; one of
    these forms; options: fields that may be there besides; is_change: whether it changes something,
    and is kept in the list of actions.
    """

    forms: tuple[Mapping[str, str], ...] = ({},)
    options: tuple[str, ...] = ()
    is_change: bool = True


_SLAVE = {"slave": "NAME"}
VERBS = {
    "reload": Verb(),
    "stop": Verb(),
    "replace": Verb(),
    "level": Verb(({"level": "LEVEL"},), ("logger", "for")),
    "pause": Verb(({"events": "true"}, _SLAVE)),
    "resume": Verb(({"events": "true"}, _SLAVE)),
    "restart": Verb((_SLAVE,)),
    "run-now": Verb((_SLAVE,)),
    "stacks": Verb(({}, _SLAVE), is_change=False),
    "retry": Verb(_WHICH, tuple(_FILTER)),
    "drop": Verb(_WHICH, tuple(_FILTER)),
    "show": Verb(({"id": "NUMBER"},), is_change=False),
}


def parse(verb: str, body: bytes) -> dict[str, Any]:
    """The checked fields of a request's body, none of an empty one; raises BadRequest and
    InvalidEvent."""
    if len(body) > MAX_BODY:
        raise RequestEntityTooLarge(f"A request to /control has at most {MAX_BODY} bytes")
    given = decode(body, MAX_BODY) if body.strip() else {}
    kind = VERBS[verb]
    if not isinstance(given, dict):
        raise BadRequest(f"The body must be {_described(kind)}")
    required = {name for form in kind.forms for name in form}
    if given.keys() & required not in [form.keys() for form in kind.forms]:
        raise BadRequest(f"The body must be {_described(kind)}")
    # The filters are for all of them, not for those that are named.
    options = () if "ids" in given else kind.options
    for name in given.keys() - required - set(options):
        known = f"; known: {', '.join(options)}" if options else ""
        raise BadRequest(f"The body has an unexpected field {describe(name)}{known}")
    try:
        return {name: _checked(name, value) for name, value in given.items()}
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _checked(name: str, value: Any) -> Any:
    try:
        return _CHECKS[name](value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _described(kind: Verb) -> str:
    forms = [
        "{" + ", ".join(f'"{name}": {value}' for name, value in form.items()) + "}"
        for form in kind.forms
    ]
    return " or ".join(forms)
