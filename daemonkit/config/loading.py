"""Loading a configuration: read, overridden, checked against the table of settings."""

from __future__ import annotations

import copy
import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..exceptions import ConfigError
from ..text import describe, is_encodable
from .access import parse_tokens, unix_path
from .checks import is_address
from .defaults import SETTINGS, Settings
from .files import Files
from .places import KeyPath
from .redaction import HIDDEN
from .secrets import SECRETS, Secret, hide, secrets_in, without_passwords
from .yamlfile import NOT_UTF_8, parse_file, parse_value

SECTION = "master"

IN_PROGRAM = "the program"
"""The origin of a mapping that was given in the code."""

ConfigSource = str | os.PathLike[str] | Mapping[str, Any] | None
"""A YAML file's path, a mapping of the same form, or None for the defaults alone."""


class Override(NamedTuple):
    """One value given on the command line.

    key: dotted path, such as `master.port`; text: the value; option: what to name in an error;
    raw: use the text as it is, not as YAML.
    """

    key: str
    text: str
    option: str
    raw: bool = False

    @classmethod
    def parse(cls, assignment: str) -> Override:
        """Read `KEY=VALUE`, as given to `--set`; raises ConfigError."""
        key, equals, text = assignment.partition("=")
        if not equals or not all(key.split(".")):
            shown = re.sub("!secret.+", f"!secret {HIDDEN}", assignment, flags=re.DOTALL)
            raise ConfigError(f"--set takes KEY=VALUE with a dotted KEY, not {shown!r}")
        if not is_encodable(key):
            raise ConfigError(f"the KEY of --set is {NOT_UTF_8}: {key!r}")
        return cls(key, text, f"--set {key}")


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # It has been removed; absolute paths still work.
        return Path()


@dataclass(frozen=True, eq=False, repr=False)
class Given:
    """What was given of a configuration at one time.

    source: a file or a mapping; overlay: a mapping to merge over it, key by key; overrides: values
    to set in the result; files: keeps the content of pipes; folder: base of relative paths outside
    a file, fixed here because the user's code may change the current folder.
    """

    source: ConfigSource = None
    overrides: tuple[Override, ...] = ()
    overlay: Mapping[str, Any] | None = None
    files: Files = field(default_factory=Files)
    folder: Path = field(default_factory=_current_folder)


@dataclass(eq=False, repr=False)
class Config:
    """A loaded configuration.

    config: everything but the section `master`; master: that section over the defaults, as in
    force; read_master: the same as it was read; source: where it came from; origins: where each
    value that isn't a default was given.
    """

    config: dict[str, Any]
    master: dict[str, Any]
    read_master: dict[str, Any]
    source: ConfigSource
    origins: dict[KeyPath, str] = field(default_factory=dict)

    @cached_property
    def settings(self) -> Settings:
        """`master`, typed."""
        return Settings(**self.master)

    def tree(self) -> dict[str, Any]:
        """The configuration in one piece, with the section `master`."""
        return {**self.config, SECTION: self.master}

    def visible(self) -> dict[str, Any]:
        """`config` and `master_config` as `/status` may show them."""
        shown = hide(self.tree(), self.settings.hidden_opts)
        section = shown.pop(SECTION)
        if section == HIDDEN:
            section = dict.fromkeys(self.master, HIDDEN)
        return {"config": shown, "master_config": without_passwords(section)}


class _Origin(NamedTuple):
    """Where a value was given: the file or option, its line, the folder of its relative paths."""

    name: str | None
    line: int | None
    folder: Path

    def error(self, message: str) -> ConfigError:
        return ConfigError(message, self.name, self.line)


_UNNAMED = _Origin(None, None, Path())


class _Tree:
    """A configuration while it is being assembled, with the origins of its settings."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.shown_origins: dict[KeyPath, str] = {}
        self._origins: dict[str, _Origin] = {}

    def read(self, source: ConfigSource, folder: Path, files: Files) -> None:
        """Read a file or a mapping, and check its form."""
        if source is None or isinstance(source, Mapping):
            self.merge(source or {}, folder)
        elif isinstance(source, str | os.PathLike) and not os.fspath(source):
            raise ConfigError("the path of the configuration file is empty")
        elif isinstance(source, str | os.PathLike):
            document = parse_file(source, SECTION, files, folder)
            name = os.fspath(source)
            if not isinstance(document.value, dict | None):
                raise ConfigError(
                    f"must be a mapping of options to values, not {type(document.value).__name__}",
                    name,
                    document.line,
                )
            self.values = document.value or {}
            self._origins = {
                key: _Origin(name, line, document.folder) for key, line in document.lines.items()
            }
            self.shown_origins = {
                path: f"{name}:{place.line}" + (f", {place.source}" if place.source else "")
                for path, place in document.places.items()
            }
        else:
            raise ConfigError(f"config must be a file's path or a mapping, not {describe(source)}")
        self.check_section()

    def merge(self, overlay: Mapping[str, Any], folder: Path) -> None:
        """Merge a mapping over it, key by key."""
        section, origin = overlay.get(SECTION), _Origin(None, None, folder)
        for setting in section if isinstance(section, Mapping) else ():
            self._origins[f"{SECTION}.{setting}"] = origin
        if section is not None and not isinstance(section, Mapping):
            self._origins[SECTION] = origin
        self.values = _merged(self.values, overlay)
        self.shown_origins.update(dict.fromkeys(_paths(overlay, ()), IN_PROGRAM))
        SECRETS.add(s for s in secrets_in(overlay) if isinstance(s, Secret))

    def override(self, override: Override, folder: Path, files: Files) -> None:
        """Set one value."""
        value: Any = override.text
        if not is_encodable(override.text):
            raise ConfigError(NOT_UTF_8, override.option)
        if not override.raw:
            document = parse_value(override.text, override.option, files, folder)
            value = document.value
        *parents, last = override.key.split(".")
        target = self.values
        for depth, name in enumerate(parents, 1):
            if target.get(name) is None:
                target[name] = {}
            target = target[name]
            if not isinstance(target, dict):
                path, kind = ".".join(parents[:depth]), type(target).__name__
                raise ConfigError(f"{path} is {kind}, not a mapping", override.option)
        target[last] = value
        if override.key == SECTION:
            self._origins.clear()
        self._origins[override.key] = _Origin(override.option, None, folder)
        keys, option = (*parents, last), override.option.partition(" ")[0]
        self.shown_origins = {
            other: origin
            for other, origin in self.shown_origins.items()
            if other[: len(keys)] != keys
        }
        self.shown_origins.update(dict.fromkeys([keys, *_paths(value, keys)], option))

    def origin(self, setting: str) -> _Origin:
        """Where a setting was given."""
        section = self._origins.get(SECTION, _UNNAMED)
        return self._origins.get(f"{SECTION}.{setting}", section)

    def check_section(self) -> None:
        """Raise ConfigError unless the section `master` is a mapping."""
        section = self.values.get(SECTION)
        if section is not None and not isinstance(section, dict):
            raise self._origins.get(SECTION, _UNNAMED).error(
                f"{SECTION} must be a mapping of settings, not {type(section).__name__}"
            )


def load(given: Given, base: Given | None = None) -> Config:
    """Load what was given, and check the result; raises ConfigError.

    base: its source counts instead, from its own folder.
    """
    base = base or given
    tree = _Tree()
    tree.read(base.source, base.folder, given.files)
    tree.merge(given.overlay or {}, given.folder)
    for override in given.overrides:
        tree.override(override, given.folder, given.files)
    tree.check_section()
    section = tree.values.pop(SECTION, None) or {}
    master = _checked(section, tree)
    return Config(tree.values, master, master, base.source, tree.shown_origins)


def _paths(value: Any, above: KeyPath) -> Iterator[KeyPath]:
    """The path of each value in a mapping."""
    for key, item in value.items() if isinstance(value, Mapping) else ():
        path = (*above, str(key))
        yield path
        yield from _paths(item, path)


def _merged(base: Mapping[Any, Any], overlay: Mapping[Any, Any]) -> dict[Any, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        if isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = _merged(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = _copied(value)
    return merged


def _copied(value: Any) -> Any:
    """Copy mappings and lists, which overrides may change, but not what they contain."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _checked(section: Mapping[Any, Any], tree: _Tree) -> dict[str, Any]:
    """The section `master` over the defaults, every value checked."""
    master = {name: copy.copy(setting.default) for name, setting in SETTINGS.items()}
    for name, value in section.items():
        origin = tree.origin(name)
        SECRETS.add(secrets_in(value))
        if name not in SETTINGS:
            raise origin.error(_unknown(name))
        check = SETTINGS[name].check
        try:
            master[name] = check(value)
        except ValueError as error:
            raise origin.error(f"{SECTION}.{name} {error}") from None
        if check.is_path and value is not None and not is_address(value):
            path = str(origin.folder / value)
            master[name] = Secret(path) if isinstance(value, Secret) else path
    _check_together(master, tree)
    return master


def _check_together(master: dict[str, Any], tree: _Tree) -> None:
    """Raise ConfigError for settings that contradict each other."""
    guarded = {right for token in parse_tokens(master["tokens"]) for right in token.rights}
    takes_datagrams = "udp" in master["intake"] and unix_path(master["host"]) is None
    if "send" in guarded and takes_datagrams and not master["allow_from"]:
        raise tree.origin("tokens").error(
            f"{SECTION}.tokens guards `send`, but a datagram carries no token; "
            f"set {SECTION}.intake to [http], or {SECTION}.allow_from"
        )
    if master["intake"] == ["udp"] and unix_path(master["host"]) is not None:
        raise tree.origin("intake").error(
            f"{SECTION}.intake has only udp, which {SECTION}.host, a Unix socket, doesn't take"
        )
    delay, limit = master["drain_delay"], master["shutdown_timeout"]
    if delay >= limit:
        raise tree.origin("drain_delay").error(
            f"{SECTION}.drain_delay must be less than {SECTION}.shutdown_timeout ({limit:g}), "
            f"of which it is a part, not {describe(delay)}"
        )


def _unknown(name: Any) -> str:
    nearest = difflib.get_close_matches(str(name), SETTINGS, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"the options are {', '.join(SETTINGS)}"
    return f"unknown option {name!r} in {SECTION}; {hint}"
