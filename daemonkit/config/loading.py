"""The configuration: loaded safely, checked against the settings table, shown without secrets."""

from __future__ import annotations

import copy
import difflib
import os
import threading
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ..exceptions import ConfigError
from ..text import describe
from .defaults import SETTINGS, Settings
from .secrets import Redactor, Secret, hide
from .yamlfile import Files, parse_file, parse_value

SECTION = "master"
LIVE_SETTINGS = ("hidden_opts", "log_level")
"""Settings that a reload brings into force; the others need a restart."""

ConfigSource = str | os.PathLike[str] | Mapping[str, Any] | None
"""A YAML file's path, a mapping of the same form, or None for the defaults alone."""


@dataclass(frozen=True)
class Override:
    """One value given on the command line.

    key: dotted path, such as `master.port`; text: the value; option: what to name in an error;
    raw: take the text as it stands, not as YAML.
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
    force; read_master: the same as it was read; source and overrides: what it was loaded from.
    """

    config: dict[str, Any]
    master: dict[str, Any]
    read_master: dict[str, Any]
    redact: Redactor
    source: ConfigSource
    overrides: tuple[Override, ...]

    @cached_property
    def settings(self) -> Settings:
        """`master`, typed."""
        return Settings(**self.master)

    def visible(self) -> dict[str, Any]:
        """`config` and `master_config` as `/status` may show them."""
        shown = hide({**self.config, SECTION: self.master}, self.settings.hidden_opts)
        master = shown.pop(SECTION)
        return {"config": shown, "master_config": master}


@dataclass(frozen=True)
class CommandLine:
    """What `daemonkit run` was given, for the daemons of the module it imports."""

    config: str | None
    overrides: tuple[Override, ...]
    files: Files = field(default_factory=Files)


COMMAND_LINE: ContextVar[CommandLine | None] = ContextVar("COMMAND_LINE", default=None)
"""Set while `daemonkit run` imports a module: `app.config` is right even at its top level."""


class ConfigInForce:
    """The configuration a daemon lives by: loaded when first needed, replaced by a reload."""

    def __init__(self, source: ConfigSource) -> None:
        given = COMMAND_LINE.get()
        self._source = given.config if given and given.config else source
        self._overrides = given.overrides if given else ()
        # Shared: what one daemon has read from a pipe, another one can't read any more.
        self._files = given.files if given else Files()
        self._lock = threading.RLock()
        self._now: Config | None = None

    @property
    def now(self) -> Config:
        """The configuration; raises ConfigError when it is wrong."""
        with self._lock:
            if self._now is None:
                self._now = load(self._source, self._overrides, self._files)
            return self._now

    @property
    def settings(self) -> Settings:
        """The section `master` over the defaults; raises ConfigError when it is wrong."""
        return self.now.settings

    def load(self, source: ConfigSource, overrides: Sequence[Override]) -> None:
        """Load it now, from `source` or else from what it was made with; raises ConfigError."""
        with self._lock:
            source = self._source if source is None else source
            self._now = load(source, overrides, self._files)

    def set_address(self, host: str, port: int) -> None:
        """Tell where the daemon listens: on the port picked for 0, or where systemd said."""
        with self._lock:
            master = {**self.now.master, "host": host, "port": port}
            self._now = replace(self.now, master=master)

    def reload(self) -> list[str]:
        """Load it again, and keep the old one if that is wrong (ConfigError).

        Returns the settings that have changed and need a restart; of the others LIVE_SETTINGS
        are in force at once.
        """
        with self._lock:
            old = self.now
            fresh = load(old.source, old.overrides, self._files)
            live = {name: fresh.master[name] for name in LIVE_SETTINGS}
            self._now = replace(
                fresh,
                master={**old.master, **live},
                read_master=old.read_master,
                # What was a secret once stays redacted.
                redact=Redactor(old.redact.secrets | fresh.redact.secrets),
            )
        return [
            f"{SECTION}.{name}"
            for name, value in fresh.master.items()
            if name not in LIVE_SETTINGS and value != old.read_master[name]
        ]

    @property
    def read_once(self) -> list[str]:
        """Paths of what it was read from and can't be read again, such as pipes."""
        return self._files.kept

    def redact(self, text: str) -> str:
        """Replace the secrets in a text, so far as they are known."""
        return text if self._now is None else self._now.redact(text)


def load(
    source: ConfigSource = None, overrides: Sequence[Override] = (), files: Files | None = None
) -> Config:
    """Load `source`, apply `overrides` in order, check the result; raises ConfigError.

    files: what reads it, and keeps what can be read only once.
    """
    files = files or Files()
    where: dict[str, tuple[str, int | None]] = {}
    secrets: list[Secret] = []
    if source is None or isinstance(source, Mapping):
        tree: Any = _copied(source or {})
        secrets += _secrets_in(tree)
    elif isinstance(source, str | os.PathLike):
        document = parse_file(source, SECTION, files)
        tree, secrets = document.value, document.secrets
        where = {key: (os.fspath(source), line) for key, line in document.lines.items()}
        if tree is None:
            tree = {}
        if not isinstance(tree, dict):
            raise ConfigError(
                f"must be a mapping of options to values, not {type(tree).__name__}",
                source,
                document.line,
            )
    else:
        raise ConfigError(f"config must be a file's path or a mapping, not {describe(source)}")
    _check_section(tree.get(SECTION), where)
    for override in overrides:
        if override.raw:
            value: Any = override.text
        else:
            document = parse_value(override.text, override.option, files)
            value = document.value
            secrets += document.secrets
        _assign(tree, override, value)
        where[override.key] = (override.option, None)
    section = tree.pop(SECTION, None)
    master = _check(section, where)
    return Config(tree, master, master, Redactor(secrets), source, tuple(overrides))


def _copied(value: Any) -> Any:
    """A copy of the mappings and lists, for overrides to change; the rest may be anything."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _secrets_in(value: Any) -> list[Secret]:
    if isinstance(value, Secret):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [secret for item in inner for secret in _secrets_in(item)]


def _assign(tree: dict[str, Any], override: Override, value: Any) -> None:
    *parents, last = override.key.split(".")
    for depth, name in enumerate(parents, 1):
        if tree.get(name) is None:
            tree[name] = {}
        tree = tree[name]
        if not isinstance(tree, dict):
            path = ".".join(parents[:depth])
            raise ConfigError(f"{path} is {type(tree).__name__}, not a mapping", override.option)
    tree[last] = value


def _check(section: Any, where: Mapping[str, tuple[str, int | None]]) -> dict[str, Any]:
    """The section `master` over the defaults, every value checked."""
    _check_section(section, where)
    master = {name: copy.copy(setting.default) for name, setting in SETTINGS.items()}
    for name, value in (section or {}).items():
        place = where.get(f"{SECTION}.{name}", where.get(SECTION, ()))
        if name not in SETTINGS:
            raise ConfigError(_unknown(name), *place)
        try:
            master[name] = SETTINGS[name].check(value)
        except ValueError as error:
            raise ConfigError(f"{SECTION}.{name} {error}", *place) from None
    delay, limit = master["drain_delay"], master["shutdown_timeout"]
    if delay >= limit:
        place = where.get(f"{SECTION}.drain_delay", where.get(SECTION, ()))
        raise ConfigError(
            f"{SECTION}.drain_delay must be less than {SECTION}.shutdown_timeout ({limit:g}), "
            f"of which it is a part, not {describe(delay)}",
            *place,
        )
    return master


def _check_section(section: Any, where: Mapping[str, tuple[str, int | None]]) -> None:
    if section is not None and not isinstance(section, dict):
        raise ConfigError(
            f"{SECTION} must be a mapping of settings, not {type(section).__name__}",
            *where.get(SECTION, ()),
        )


def _unknown(name: Any) -> str:
    nearest = difflib.get_close_matches(str(name), SETTINGS, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"the options are {', '.join(SETTINGS)}"
    return f"unknown option {name!r} in {SECTION}; {hint}"
