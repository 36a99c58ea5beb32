"""Loading a configuration: read, overridden, checked against the table of settings."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..exceptions import ConfigError
from ..text import describe
from .checks import PATH_OR_NONE
from .defaults import SETTINGS, Settings
from .secrets import Redactor, Secret, hide
from .yamlfile import Files, parse_file, parse_value

SECTION = "master"

ConfigSource = str | os.PathLike[str] | Mapping[str, Any] | None
"""A YAML file's path, a mapping of the same form, or None for the defaults alone."""


@dataclass(frozen=True)
class Override:
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
            raise ConfigError(f"--set takes KEY=VALUE with a dotted KEY, not {assignment!r}")
        return cls(key, text, f"--set {key}")


@dataclass
class Config:
    """A loaded configuration.

    config: everything but the section `master`; master: that section over the defaults, as in
    force; read_master: the same as it was read; the other attributes: the arguments of `load`.
    """

    config: dict[str, Any]
    master: dict[str, Any]
    read_master: dict[str, Any]
    redact: Redactor
    source: ConfigSource
    overrides: tuple[Override, ...]
    overlay: Mapping[str, Any]
    folder: Path

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
        master = shown.pop(SECTION)
        return {"config": shown, "master_config": master}


class _Origin(NamedTuple):
    """Where a value was given: the file or option, its line, the folder of its relative paths."""

    name: str | None
    line: int | None
    folder: Path

    def error(self, message: str) -> ConfigError:
        return ConfigError(message, self.name, self.line)


class _Tree:
    """A configuration while it is being assembled, with the origins of its settings."""

    def __init__(self, folder: Path) -> None:
        self.values: dict[str, Any] = {}
        self.secrets: list[Secret] = []
        self._unnamed = _Origin(None, None, folder)
        self._origins: dict[str, _Origin] = {}

    def read(self, source: ConfigSource, files: Files) -> None:
        """Read a file or a mapping, and check its form."""
        if source is None or isinstance(source, Mapping):
            self.merge(source or {})
        elif isinstance(source, str | os.PathLike):
            document = parse_file(source, SECTION, files, self._unnamed.folder)
            name = os.fspath(source)
            if not isinstance(document.value, dict | None):
                raise ConfigError(
                    f"must be a mapping of options to values, not {type(document.value).__name__}",
                    name,
                    document.line,
                )
            self.values = document.value or {}
            self.secrets += document.secrets
            self._origins = {
                key: _Origin(name, line, document.folder) for key, line in document.lines.items()
            }
        else:
            raise ConfigError(f"config must be a file's path or a mapping, not {describe(source)}")
        self.check_section()

    def merge(self, overlay: Mapping[str, Any]) -> None:
        """Merge a mapping over it, key by key."""
        section = overlay.get(SECTION)
        for setting in section if isinstance(section, Mapping) else ():
            self._origins[f"{SECTION}.{setting}"] = self._unnamed
        if section is not None and not isinstance(section, Mapping):
            self._origins[SECTION] = self._unnamed
        self.values = _merged(self.values, overlay)
        self.secrets += _secrets_in(overlay)

    def override(self, override: Override, files: Files) -> None:
        """Set one value."""
        value: Any = override.text
        if not override.raw:
            folder = self._unnamed.folder
            document = parse_value(override.text, override.option, files, folder)
            value = document.value
            self.secrets += document.secrets
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
        self._origins[override.key] = self._unnamed._replace(name=override.option)

    def origin(self, setting: str) -> _Origin:
        """Where a setting was given."""
        section = self._origins.get(SECTION, self._unnamed)
        return self._origins.get(f"{SECTION}.{setting}", section)

    def check_section(self) -> None:
        """Raise ConfigError unless the section `master` is a mapping."""
        section = self.values.get(SECTION)
        if section is not None and not isinstance(section, dict):
            raise self._origins.get(SECTION, self._unnamed).error(
                f"{SECTION} must be a mapping of settings, not {type(section).__name__}"
            )


def load(
    source: ConfigSource = None,
    overrides: Sequence[Override] = (),
    files: Files | None = None,
    *,
    overlay: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Config:
    """Load `source`, apply `overlay` and then `overrides`, and check the result.

    files: keeps the content of pipes; overlay: merged over `source`, key by key; folder: base of
    relative paths outside a file, by default the current folder. Raises ConfigError.
    """
    files, overlay, folder = files or Files(), overlay or {}, folder or _current_folder()
    tree = _Tree(folder)
    tree.read(source, files)
    tree.merge(overlay)
    for override in overrides:
        tree.override(override, files)
    tree.check_section()
    section = tree.values.pop(SECTION, None) or {}
    master = _checked(section, tree)
    redact = Redactor(tree.secrets)
    return Config(tree.values, master, master, redact, source, tuple(overrides), overlay, folder)


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:
        # It has been removed; absolute paths still work.
        return Path()


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


def _secrets_in(value: Any) -> list[Secret]:
    if isinstance(value, Secret):
        return [value]
    is_mapping = isinstance(value, Mapping)
    inner = value.values() if is_mapping else value if isinstance(value, list) else ()
    return [secret for item in inner for secret in _secrets_in(item)]


def _checked(section: Mapping[Any, Any], tree: _Tree) -> dict[str, Any]:
    """The section `master` over the defaults, every value checked."""
    master = {name: copy.copy(setting.default) for name, setting in SETTINGS.items()}
    for name, value in section.items():
        origin = tree.origin(name)
        if name not in SETTINGS:
            raise origin.error(_unknown(name))
        check = SETTINGS[name].check
        try:
            master[name] = check(value)
        except ValueError as error:
            raise origin.error(f"{SECTION}.{name} {error}") from None
        if check is PATH_OR_NONE and value is not None:
            path = str(origin.folder / value)
            master[name] = Secret(path) if isinstance(value, Secret) else path
    delay, limit = master["drain_delay"], master["shutdown_timeout"]
    if delay >= limit:
        raise tree.origin("drain_delay").error(
            f"{SECTION}.drain_delay must be less than {SECTION}.shutdown_timeout ({limit:g}), "
            f"of which it is a part, not {describe(delay)}"
        )
    return master


def _unknown(name: Any) -> str:
    nearest = difflib.get_close_matches(str(name), SETTINGS, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"the options are {', '.join(SETTINGS)}"
    return f"unknown option {name!r} in {SECTION}; {hint}"
