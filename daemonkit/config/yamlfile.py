"""Strict YAML: every error is a ConfigError that names the file and the line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from ..exceptions import ConfigError
from ..text import is_encodable
from .files import Files, behind_descriptor
from .places import KeyPath, Place, places_of
from .redaction import HIDDEN
from .secrets import SECRETS, Secret
from .spellings import SHORTEST

MAX_EXPANDED = 100_000
"""Limit on the values of a document whose aliases are expanded."""

SWITCHES = ("on", "off", "yes", "no")
"""Names that YAML 1.1 takes for true and false: as keys they are texts."""
NOT_UTF_8 = "not valid UTF-8"

_MERGE, _INT, _FLOAT, _BOOL, _TEXT = (
    f"tag:yaml.org,2002:{name}" for name in ("merge", "int", "float", "bool", "str")
)


@dataclass(eq=False, repr=False)
class Document:
    """The content of a text.

    lines: of the keys at the top level and in one section; line: where
    the value begins; folder: where its relative paths begin; places: of all keys.
    """

    value: Any
    lines: dict[str, int]
    line: int
    folder: Path
    places: dict[KeyPath, Place] = field(default_factory=dict)


def parse_file(path: str | os.PathLike[str], section: str, files: Files, folder: Path) -> Document:
    """Read the YAML file at `path`, which is relative to `folder`.

    Raises ConfigError for anything that is wrong with it.
    """
    absolute = folder / path
    try:
        data = files.read(absolute)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot read the configuration: {reason}", path) from None
    # A pipe is in no folder.
    if str(absolute) not in files.kept:
        folder = behind_descriptor(absolute).parent
    return _parse(data, path, folder, _FileLoader, section, files)


def parse_value(text: str, origin: str, files: Files, folder: Path) -> Document:
    """Read the value of `origin`, a command-line option; tags work as in a file."""
    return _parse(text, origin, folder, _FileLoader, "", files)


def _parse(
    data: bytes | str,
    origin: str | os.PathLike[str],
    folder: Path,
    loader_class: type[_StrictLoader],
    section: str,
    files: Files,
) -> Document:
    # A line number within an option or a variable is of no use.
    in_file = isinstance(data, bytes)

    def fail(message: str, line: int | None) -> NoReturn:
        raise ConfigError(message, origin, line if in_file else None) from None

    if isinstance(data, str) and not is_encodable(data):
        fail(NOT_UTF_8, None)
    try:
        loader = loader_class(data, folder, files)
    except yaml.reader.ReaderError as error:
        raw = data if isinstance(data, bytes) else data.encode()
        # The position counts characters in decoded text, and bytes in undecoded text.
        before = (
            raw.decode(errors="replace") if error.encoding == "unicode" else raw.decode("latin-1")
        )
        fail(f"not valid YAML: {error.reason}", before[: error.position].count("\n") + 1)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document(None, {}, 1, folder)
        if isinstance(data, str) and _is_accidental(node, data):
            return Document(data.strip(), {}, 1, folder)
        _check_aliases(node)
        loader.check_keys(node)
        value = loader.construct_document(node)
        lines = _key_lines(node, section)
        return Document(value, lines, node.start_mark.line + 1, folder, places_of(node))
    except _NodeError as error:
        fail(error.message, error.line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else loader.line + 1
        fail(_invalid(error.problem or error.context or "", data), line)
    except RecursionError:
        fail("nested too deeply", loader.line + 1)
    # PyYAML also raises ValueError, AttributeError, IndexError and others.
    except Exception as error:
        fail(_invalid(str(error) or type(error).__name__, data), loader.line + 1)
    finally:
        loader.dispose()


def _is_accidental(node: yaml.Node, text: str) -> bool:
    """Whether a value in one line, such as `::` or `- x`, is only by accident a mapping or list."""
    is_block = isinstance(node, yaml.CollectionNode) and not node.flow_style
    return is_block and "\n" not in text.strip() and not any(tag in text for tag in _TAGS)


def _invalid(reason: str, data: bytes | str) -> str:
    """What is wrong with a document; quotes nothing of a secret, which may not be known yet."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    tags = re.findall("!secret.*", text)

    def hidden(quoted: re.Match[str]) -> str:
        is_secret = len(quoted[2]) >= SHORTEST and any(quoted[2] in tag for tag in tags)
        return HIDDEN if is_secret else quoted[0]

    return "not valid YAML: " + re.sub(r"""(['"])(.+?)\1""", hidden, " ".join(reason.split()))


class _NodeError(Exception):
    """An error at a node of the document."""

    def __init__(self, message: str, node: yaml.Node) -> None:
        super().__init__(message)
        self.message = message
        self.line = node.start_mark.line + 1


def _one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_aliases(root: yaml.Node) -> None:
    """Refuse an alias that contains itself, and aliases that expand to a huge document."""
    sizes: dict[int, int] = {}
    unfinished: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in unfinished:
            raise _NodeError("an alias must not contain itself", node)
        if key not in sizes:
            unfinished.add(key)
            sizes[key] = 1 + sum(map(size, _children(node)))
            unfinished.discard(key)
        return sizes[key]

    if size(root) > max(MAX_EXPANDED, len(sizes)):
        raise _NodeError(f"its aliases expand to more than {MAX_EXPANDED} values", root)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _key_lines(root: yaml.Node, section: str) -> dict[str, int]:
    if not isinstance(root, yaml.MappingNode):
        return {}
    lines = {str(key.value): key.start_mark.line + 1 for key, _ in root.value}
    for key, node in root.value:
        if key.value == section and isinstance(node, yaml.MappingNode):
            for inner, _ in node.value:
                lines[f"{section}.{inner.value}"] = inner.start_mark.line + 1
    return lines


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys and ambiguous numbers, and knows the line of every
    error.

    Of YAML 1.1, which PyYAML reads, it leaves out what surprises those who know YAML 1.2.
    """

    def __init__(self, data: bytes | str, folder: Path, files: Files) -> None:
        self.folder = folder
        self.files = files
        super().__init__(data)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (yaml.YAMLError, _NodeError, RecursionError):
            raise
        # Scalars such as `2024-13-01` or `!!float ""` raise what their conversion raises.
        except Exception as error:
            is_shown = isinstance(node, yaml.ScalarNode) and node.tag != "!secret"
            value = f" {node.value!r}" if is_shown else ""
            raise _NodeError(
                f"not valid YAML: bad value{value}: {_one_line(error)}", node
            ) from None

    def check_keys(self, root: yaml.Node) -> None:
        """Refuse duplicate keys; to be called before construction adds merged keys to the nodes."""
        pending, checked = [root], set()
        while pending:
            node = pending.pop()
            if id(node) in checked:
                continue
            checked.add(id(node))
            pending += _children(node)
            seen: dict[Hashable, int] = {}
            for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                    continue
                if key_node.tag == _BOOL and key_node.value.lower() in SWITCHES:
                    key_node.tag = _TEXT
                key = self.construct_object(key_node)
                if key in seen:
                    first = f"first defined on line {seen[key]}"
                    raise _NodeError(f"duplicate key {key!r} ({first})", key_node)
                seen[key] = key_node.start_mark.line + 1


def _construct_number(loader: _StrictLoader, node: yaml.ScalarNode) -> Any:
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    if ":" in text:
        raise _NodeError(
            "a number with colons is ambiguous: quote it, or write it without them", node
        )
    if digits.startswith("0o"):
        return int(text.replace("0o", "", 1), 8)
    if re.fullmatch("0[0-7]+", digits) and int(digits, 8) != int(digits):
        raise _NodeError(
            "a number that begins with 0 is ambiguous: quote it if it is a text; otherwise begin "
            "it with 0o if it is octal, or leave out the 0",
            node,
        )
    is_int = node.tag == _INT
    return loader.construct_yaml_int(node) if is_int else loader.construct_yaml_float(node)


def _construct_text(loader: _StrictLoader, node: yaml.ScalarNode) -> str:
    text: str = loader.construct_scalar(node)
    return text


for _tag in (_INT, _FLOAT):
    _StrictLoader.add_constructor(_tag, _construct_number)
_StrictLoader.add_implicit_resolver(_INT, re.compile("[-+]?0o[0-7]+$"), list("-+0"))
# `=` and `<<` are texts; the latter merges mappings when it is a key.
_StrictLoader.yaml_implicit_resolvers.pop("=")
_StrictLoader.add_constructor(_MERGE, _construct_text)


class _FileLoader(_StrictLoader):
    """The loader for configuration files, with the tags `!env` and `!secret`."""


def _construct_env(loader: _FileLoader, node: yaml.Node) -> Any:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not 1 <= len(nodes) <= 2 or not isinstance(nodes[0], yaml.ScalarNode) or not nodes[0].value:
        raise _NodeError("!env takes NAME or [NAME, default]", node)
    name = nodes[0].value
    text = loader.files.variable(name)
    if text is not None:
        try:
            origin = f"environment variable {name}"
            return _parse(text, origin, Path(), _StrictLoader, "", loader.files).value
        except ConfigError as error:
            raise _NodeError(str(error), node) from None
    if len(nodes) == 2:
        return loader.construct_object(nodes[1], deep=True)
    raise _NodeError(f"the environment variable {name} is not set", node)


def _construct_secret(loader: _FileLoader, node: yaml.Node) -> Secret:
    if not isinstance(node, yaml.ScalarNode):
        raise _NodeError("!secret takes env:NAME, file:PATH or the text itself", node)
    secret = Secret(_read_secret(loader, node))
    if not secret:
        raise _NodeError("the secret is empty", node)
    SECRETS.add([secret])
    return secret


def _read_secret(loader: _FileLoader, node: yaml.ScalarNode) -> str:
    text: str = node.value
    if text in ("env:", "file:"):
        raise _NodeError(f"!secret {text} needs a name behind it", node)
    if text.startswith("env:"):
        name = text[len("env:") :]
        value = loader.files.variable(name)
        if value is None:
            raise _NodeError(f"the environment variable {name} is not set", node)
        if not is_encodable(value):
            raise _NodeError(f"the environment variable {name} is {NOT_UTF_8}", node)
        return value
    if text.startswith("file:"):
        path = text[len("file:") :]
        try:
            content = _decoded(loader.files.read(loader.folder / path))
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or _one_line(error)
            raise _NodeError(f"cannot read the secret file {path}: {reason}", node) from None
        return content.replace("\r\n", "\n").removesuffix("\n").removesuffix("\r")
    return text


def _decoded(data: bytes) -> str:
    """The text of a secret file; raises ValueError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(NOT_UTF_8) from None
    # ASCII in UTF-16 is valid UTF-8.
    if "\0" in text:
        raise ValueError(f"{NOT_UTF_8}: it contains a null character")
    return text


_TAGS: dict[str, Callable[[_FileLoader, Any], Any]] = {
    "!env": _construct_env,
    "!secret": _construct_secret,
}
for _tag, _construct in _TAGS.items():
    _FileLoader.add_constructor(_tag, _construct)
