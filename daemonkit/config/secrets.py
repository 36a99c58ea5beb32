"""Secrets: strings that are hidden in `/status` and redacted in all output."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

from ..system.reports import redact_reports
from .redaction import HIDDEN, Redactor

_USERINFO = (
    # More than one scheme: `webhook:https://...` in the setting `alerts`.
    r"(?:[^:/?#]*:)+//([^/?#]*)@",
    # Not a valid URL: the password has a slash in it, for example.
    r"(?s)(?:[^:/?#]*:)+//([^/?#:\[]*:(?![0-9]*(?:[/?#]|$)).*)@",
)


class Secret(str):
    """A string whose `repr` doesn't show it; made by `!secret` in the configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(HIDDEN)


class KnownSecrets:
    """The secrets of the process: of every daemon in it, whether still in force or not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._redactor = Redactor()

    def add(self, secrets: Iterable[str]) -> None:
        """Redact these, too, from now on; also in what Python reports."""
        with self._lock:
            known = self._redactor.secrets | frozenset(map(str, secrets))
            if known != self._redactor.secrets:
                self._redactor = Redactor(known)
                redact_reports(self.redact)

    def redact(self, text: str) -> str:
        """Replace every secret in a text."""
        return self._redactor(text)


SECRETS = KnownSecrets()
"""Module-level, because any daemon's secret may get into any text of the process."""
redact = SECRETS.redact


def secrets_in(value: Any) -> Iterator[str]:
    """The secrets in a configuration or a part of it, passwords in URLs included."""
    if isinstance(value, Secret):
        yield value
    if isinstance(value, str):
        password = password_in(value)
        yield from {password, unquote(password)} - {""}
    elif isinstance(value, Mapping | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from secrets_in(item)


def password_in(url: str) -> str:
    """The password in a URL, as it is written there; without one, the whole of its userinfo."""
    begin, end = _span_of_password(url)
    return url[begin:end]


def without_password(url: str) -> str:
    """The URL, with HIDDEN in place of its password."""
    begin, end = _span_of_password(url)
    return url[:begin] + HIDDEN + url[end:] if end else url


def without_passwords(value: Any) -> Any:
    """Return a copy of `value` with HIDDEN for each password in a URL."""
    if isinstance(value, Mapping):
        return {key: without_passwords(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_passwords(item) for item in value]
    return without_password(value) if isinstance(value, str) else value


def _span_of_password(url: str) -> tuple[int, int]:
    for pattern in _USERINFO:
        if found := re.match(pattern, url):
            user, _, password = found[1].partition(":")
            begin = found.start(1) + (len(user) + 1 if password else 0)
            return begin, begin + len(password or user)
    return 0, 0


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
