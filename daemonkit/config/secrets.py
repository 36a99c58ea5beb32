"""Secrets: strings that are hidden in `/status` and redacted in all output."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

HIDDEN = "*** HIDDEN ***"
SHORTEST = 3
"""Length of the shortest secret that is redacted in texts: a shorter one would match everywhere."""


class Secret(str):
    """A string whose `repr` doesn't show it; made by `!secret` in the configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


class Redactor:
    """Replaces every known secret in a text.

    Secrets are also found in the escaped forms that `repr` and JSON give them.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(map(str, secrets))
        long_enough = (secret for secret in self.secrets if len(secret) >= SHORTEST)
        forms = {form for secret in long_enough for form in _written_forms(secret)}
        # The longest first: a secret may begin with another one.
        longest_first = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def __call__(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text) if self._pattern else text


def _written_forms(secret: str) -> set[str]:
    return {
        secret,
        repr(secret)[1:-1],
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
    }


def hide(value: Any, patterns: list[str], path: tuple[str, ...] = ()) -> Any:
    """Return a copy of `value` with HIDDEN for each Secret and each option that `patterns` match.

    A pattern without dots matches a key at the top level. In a dotted one, `*` matches within one
    key, and `**` any number of keys, including none. The key of a list's item is its index.
    """
    if isinstance(value, Secret) or (path and any(matches(path, p) for p in patterns)):
        return HIDDEN
    if isinstance(value, Mapping):
        return {key: hide(item, patterns, (*path, str(key))) for key, item in list(value.items())}
    if isinstance(value, list | tuple):
        return [hide(item, patterns, (*path, str(i))) for i, item in enumerate(value)]
    return value


def matches(path: tuple[str, ...], pattern: str) -> bool:
    """Whether a pattern names exactly the option at `path`; see `hide`."""
    # The joined form is for keys that contain dots.
    return ".".join(path) == pattern or _match_keys(path, tuple(pattern.split(".")))


def _match_keys(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_match_keys(path[n:], pattern[1:]) for n in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _match_keys(path[1:], pattern[1:])
