"""Where the values of a YAML document stand, and where those come from that stand elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import yaml

KeyPath = tuple[str, ...]
"""The keys that lead to a value."""


class Place(NamedTuple):
    """line: of the key; source: what is read for the value, such as `environment PORT`, or ""."""

    line: int
    source: str


def places_of(root: yaml.Node) -> dict[KeyPath, Place]:
    """The place of each value in a constructed document, whose merged keys are in their mappings;
    a list counts as one value."""
    return dict(_walk(root, ()))


def _walk(node: yaml.Node, path: KeyPath) -> Iterator[tuple[KeyPath, Place]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            yield below, Place(key.start_mark.line + 1, _source(value))
            yield from _walk(value, below)


def _source(node: yaml.Node) -> str:
    if node.tag == "!secret":
        kind, colon, name = str(node.value).partition(":")
        return f"secret {kind}:{name}" if colon and kind in ("env", "file") else "secret"
    if node.tag == "!env":
        is_list = isinstance(node, yaml.SequenceNode)
        name = str(node.value[0].value if is_list else node.value)
        return f"environment {name}" if name in os.environ else f"default of !env {name}"
    return ""
