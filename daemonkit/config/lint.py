"""Likely mistakes in a valid configuration."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from .defaults import SETTINGS
from .loading import SECTION, Config
from .secrets import Secret, matches

Path = tuple[str, ...]

_SECRET_NAME = (
    r"(?:password|passwd|passphrase|secret|token|credential|(?:api|private|secret|access)key)(s?)$"
)
_WORD = r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])"
_TOKENS = {(SECTION, "tokens")}
"""Where all secrets are known to be marked as such."""
_ATTRIBUTES = {
    *("count", "expiry", "file", "header", "host", "id", "length", "lifetime", "limit", "name"),
    *("path", "port", "size", "timeout", "ttl", "type", "uri", "url", "user", "username"),
}
"""Last words of keys that describe a secret but don't hold it."""


def warnings_for(config: Config) -> list[str]:
    """One line for each likely mistake; names of options only, never a value of one."""
    patterns = config.settings.hidden_opts
    options = list(_walk(config.tree(), ()))
    hidden = {path for path, _ in options if any(matches(path, p) for p in patterns)}
    return [
        *(
            f"the option {key!r} looks like a misspelled {SECTION!r}; settings are read from "
            f"{SECTION!r} only"
            for key, value in config.config.items()
            if _is_nearly_the_section(str(key), value)
        ),
        *(
            f"{SECTION}.hidden_opts: {pattern!r} matches no option"
            for pattern in patterns
            if not any(matches(path, pattern) for path, _ in options)
        ),
        *(
            f"the option {name!r} looks like a secret, and /status shows it: make it a !secret, or "
            f"name it in {SECTION}.hidden_opts"
            for name in dict.fromkeys(_shown_secrets(options, hidden | _TOKENS))
        ),
        *_unsent_alerts(config.settings.alerts),
    ]


def log_warnings(config: Config, logger: logging.Logger) -> None:
    """Log each likely mistake."""
    for warning in warnings_for(config):
        logger.warning("%s", warning)


def _is_nearly_the_section(key: str, value: Any) -> bool:
    if value is not None and not isinstance(value, dict):
        return False
    likeness = SequenceMatcher(None, key.lower(), SECTION).ratio()
    # `faster` is an option of the user's, unless it has our settings in it.
    return likeness >= (0.8 if SETTINGS.keys() & (value or {}) else 0.9)


def _unsent_alerts(alerts: Mapping[str, Any]) -> list[str]:
    if not alerts.get("when") or alerts.get("to"):
        return []
    return [f"{SECTION}.alerts.when raises alerts that go nowhere: {SECTION}.alerts.to is missing"]


def _shown_secrets(options: list[tuple[Path, Any]], hidden: set[Path]) -> Iterator[str]:
    for path, value in options:
        prefixes = [path[:length] for length in range(len(path), 0, -1)]
        if not _can_be_secret(value) or any(prefix in hidden for prefix in prefixes):
            continue
        # The innermost key that says something decides about all below it.
        said = ((prefix, _says_secret(prefix[-1], value, prefix == path)) for prefix in prefixes)
        prefix, is_secret = next((s for s in said if s[1] is not None), (path, False))
        if is_secret:
            yield ".".join(prefix)


def _can_be_secret(value: Any) -> bool:
    if isinstance(value, str):
        return value != "" and not isinstance(value, Secret)
    return isinstance(value, int | float) and not isinstance(value, bool)


def _says_secret(key: str, value: Any, is_own: bool) -> bool | None:
    """Whether a key says that `value` is a secret; None when it says nothing.

    is_own: the value is the key's own, not one below it.
    """
    words = [word.lower() for word in re.findall(_WORD, key)] or [""]
    found = re.search(_SECRET_NAME, "".join(words))
    # `tokens: 100` is how many there are.
    is_count = found and found[1] and is_own and not isinstance(value, str)
    if words[0] in ("max", "min") or words[-1] in _ATTRIBUTES or is_count:
        return False
    return True if found or words[-1] in ("pass", "pwd") else None


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every option in `value`, with its path; items of a list have their index as key."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    else:
        items = [(str(i), v) for i, v in enumerate(value)] if isinstance(value, list) else []
    for key, item in items:
        yield (*path, key), item
        yield from _walk(item, (*path, key))
