"""The value of the setting `alerts`: where alerts are sent, and which conditions raise them."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from .checks import URL, BadValue, Check, duration, whole
from .secrets import SECRETS, Secret

JUGGLER, ALERTMANAGER, WEBHOOK = "juggler", "alertmanager", "webhook"


class Target(NamedTuple):
    """Where alerts are sent.

    kind: JUGGLER, ALERTMANAGER or WEBHOOK; name: the kind, and a number from the second one on;
    url: empty for Juggler, which has settings of its own.
    """

    kind: str
    name: str
    url: str


class When(NamedTuple):
    """The conditions of the daemon that raise alerts; None for those that don't.

    unhealthy: seconds; oldest_age: seconds; dead_letters: how many; queue_full: a share of 1.
    """

    unhealthy: float | None = None
    oldest_age: float | None = None
    dead_letters: int | None = None
    queue_full: float | None = None


def parse_targets(alerts: Mapping[str, Any]) -> list[Target]:
    """The targets of the checked setting."""
    count: Counter[str] = Counter()
    targets = []
    for item in alerts.get("to", ()):
        kind, url = _split(item)
        count[kind] += 1
        name = kind if count[kind] == 1 else f"{kind}-{count[kind]}"
        targets.append(Target(kind, name, url))
    return targets


def parse_when(alerts: Mapping[str, Any]) -> When:
    """The conditions of the checked setting."""
    return When(**{name: _CONDITIONS[name](v) for name, v in alerts.get("when", {}).items()})


def _alerts(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError
    _check_keys(value, ("to", "when"), "key")
    targets, when = value.get("to", []), value.get("when", {})
    if not isinstance(targets, list):
        raise BadValue("must have a list as `to`")
    split = [_split(item) for item in targets]
    if len(set(split)) < len(split):
        raise BadValue("must have no target twice in `to`")
    if not isinstance(when, Mapping):
        raise BadValue("must have a mapping of conditions to limits as `when`")
    _check_keys(when, _CONDITIONS, "condition")
    for name, limit in when.items():
        try:
            _CONDITIONS[name](limit)
        except ValueError as error:
            raise BadValue(f"has a wrong `{name}` in `when`, which {error}") from None
    return dict(value)


def _check_keys(value: Mapping[Any, Any], known: Iterable[str], what: str) -> None:
    for key in value:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"use {', '.join(known)}"
            raise BadValue(f"has an unknown {what} {key!r}; {hint}")


def _split(item: Any) -> tuple[str, str]:
    """The kind and URL of a target: `kind:URL`, or a mapping of the kind to the URL."""
    if isinstance(item, Mapping) and len(item) == 1:
        ((kind, url),) = item.items()
    elif isinstance(item, str):
        kind, _, url = item.partition(":")
        if isinstance(item, Secret):
            url = Secret(url)
            SECRETS.add(filter(None, [url]))
    else:
        kind, url = None, None
    if kind == JUGGLER and url == "":
        return kind, url
    if kind not in (ALERTMANAGER, WEBHOOK):
        raise BadValue("must have `juggler`, `alertmanager:URL` or `webhook:URL` in `to`")
    try:
        return kind, URL(url)
    except ValueError:
        raise BadValue(f"must have {URL.text} behind `{kind}:` in `to`") from None


def _percent(value: Any) -> float:
    if not isinstance(value, str):
        raise TypeError
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)%", value)
    if found is None or not 0 < float(found[1]) <= 100:
        raise ValueError
    return float(found[1]) / 100


_CONDITIONS: dict[str, Check[Any]] = {
    "unhealthy": duration(0, 86_400),
    "oldest_age": duration(0.1, 604_800),
    "dead_letters": whole(1),
    "queue_full": Check("a percentage above 0% and up to 100%", _percent, "80%"),
}

ALERTS = Check("a mapping with `to` and `when`", _alerts)
