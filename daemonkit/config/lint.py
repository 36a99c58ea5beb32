"""Likely mistakes in a valid configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

from .defaults import SETTINGS
from .loading import SECTION, Config
from .secrets import Secret, matches

Path = tuple[str, ...]

_SECRET_NAME = re.compile(
    r"(password|passwd|passphrase|secret|token|credential|(api|private|secret|access)key)s?$"
)


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
            f"the option {'.'.join(path)!r} looks like a secret, and /status shows it: make it a "
            f"!secret, or name it in {SECTION}.hidden_opts"
            for path, value in options
            if _looks_secret(path, value)
            and not any(path[:length] in hidden for length in range(1, len(path) + 1))
        ),
    ]


def _is_nearly_the_section(key: str, value: Any) -> bool:
    if value is not None and not isinstance(value, dict):
        return False
    likeness = SequenceMatcher(None, key.lower(), SECTION).ratio()
    # `faster` is an option of the user's, unless it has our settings in it.
    return likeness >= (0.8 if SETTINGS.keys() & (value or {}) else 0.9)


def _looks_secret(path: Path, value: Any) -> bool:
    texts = value if isinstance(value, list) else [value]
    return bool(_SECRET_NAME.search(re.sub(r"[^a-z]", "", path[-1].lower()))) and any(
        isinstance(text, str) and text and not isinstance(text, Secret) for text in texts
    )


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every option in `value`, with its path; items of a list have their index as key."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    else:
        items = [(str(i), v) for i, v in enumerate(value)] if isinstance(value, list) else []
    for key, item in items:
        yield (*path, key), item
        yield from _walk(item, (*path, key))
