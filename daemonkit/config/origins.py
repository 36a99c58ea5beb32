"""The options of a configuration as they may be shown, and where each value comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .loading import SECTION, Config
from .places import KeyPath

DEFAULT = "default"


class ShownOption(NamedTuple):
    """key: dotted; value: without what is hidden; origin: `cfg.yaml:3`, an option of the command
    line, `default`, or `the program` for a mapping that was given in the code."""

    key: str
    value: Any
    origin: str


def shown_options(config: Config) -> list[ShownOption]:
    """The user's options in their order, then all settings."""
    visible = config.visible()
    tree = {**visible["config"], SECTION: visible["master_config"]}
    return [
        ShownOption(".".join(path), value, _origin(path, config.origins))
        for path, value in _leaves(tree, ())
    ]


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if path and not (isinstance(value, Mapping) and value):
        yield path, value
        return
    for key, item in value.items():
        yield from _leaves(item, (*path, str(key)))


def _origin(path: KeyPath, origins: Mapping[KeyPath, str]) -> str:
    # A setting that isn't there isn't in the section's line either.
    shortest = 2 if path[0] == SECTION else 1
    for length in range(len(path), shortest - 1, -1):
        if (found := origins.get(path[:length])) is not None:
            return found
    return DEFAULT
