"""The configuration in force: loaded on first use, validated, replaced by a reload."""

from __future__ import annotations

import logging
import os
import stat
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from ..callables import accepts, function_name, refuse_unrun
from ..exceptions import ConfigError
from ..text import error_text
from ..types import ValidateHook
from .checks import is_address
from .children import handed_down
from .defaults import Settings
from .files import refuse_special
from .loading import SECTION, Config, ConfigSource, Given, load
from .secrets import redact

T = TypeVar("T")

LIVE_SETTINGS = ("hidden_opts", "log_level")
"""Settings that take effect with a reload; the others need a restart."""

COMMAND_LINE: ContextVar[Given | None] = ContextVar("COMMAND_LINE", default=None)
"""Set while a module or factory runs, so that `app.config` is right even at the top level."""


class Reload(NamedTuple):
    """What a reload did not change.

    needs_restart: settings that differ in the file; fixed: keys set on the command line;
    read_once: paths that can't be read again, such as pipes; has_file: whether there is a file.
    """

    needs_restart: list[str]
    fixed: list[str]
    read_once: list[str]
    has_file: bool

    def report(self) -> list[tuple[int, str]]:
        """Lines for the log, each with its level."""
        lines = []
        if self.needs_restart:
            changed = ", ".join(self.needs_restart)
            lines.append(
                (logging.WARNING, f"Changed, but in force only after a restart: {changed}")
            )
        if not self.has_file:
            lines.append((logging.WARNING, "There is no configuration file to read again"))
        if self.fixed:
            lines.append((logging.INFO, f"Fixed by the command line: {', '.join(self.fixed)}"))
        for path in self.read_once:
            text = f"{path} can't be read again; its first content stays in force"
            lines.append((logging.WARNING, text))
        return lines


class ConfigInForce:
    """A daemon's configuration."""

    def __init__(self, source: ConfigSource) -> None:
        self._handed_down = handed_down(os.environ)
        # Its files are shared: a pipe that one daemon has read can't be read by another.
        self._given = COMMAND_LINE.get() or self._handed_down or Given()
        self._base = Given(source) if self._given.source is None else self._given
        self._validators: Sequence[ValidateHook] = ()
        self._lock = threading.RLock()
        self._now: Config | None = None

    @property
    def now(self) -> Config:
        """The configuration; raises ConfigError when it is wrong."""
        with self._lock:
            if self._now is None:
                self.load()
            assert self._now is not None
            return self._now

    @property
    def settings(self) -> Settings:
        """The settings in force; raises ConfigError when the configuration is wrong."""
        return self.now.settings

    @property
    def log_format(self) -> str:
        """That of the log; `text` while no configuration is in force."""
        return Settings().log_format if self._now is None else self._now.settings.log_format

    def start_settings(self) -> Settings:
        """The same, once the files that they name are of a kind that can be used; also raises
        StartError."""
        settings = self.settings
        if settings.log_file is not None:
            refuse_special(settings.log_file, f"{SECTION}.log_file", stat.S_IFCHR)
        if settings.queue is not None and not is_address(settings.queue):
            refuse_special(settings.queue, f"{SECTION}.queue")
        return settings

    def load(self, given: Given | None = None) -> None:
        """Load the configuration now; raises ConfigError.

        given: what replaces the constructor's and the command line's; its source or overlay may be
        None, which keeps the present one.
        """
        with self._lock:
            self._load(given or self._given)
            # `daemonkit run` does so after the import.
            if self._handed_down is not None:
                self._load(self._handed_down)

    def _load(self, given: Given) -> None:
        old = self._given
        given = replace(given, overlay=given.overlay or old.overlay, files=old.files)
        base = self._base if given.source is None else given
        self._now = load(given, base)
        self._given, self._base = given, base

    def validate(self, validators: Sequence[ValidateHook]) -> None:
        """Run `validators` now, and on every reload before it takes effect; raises ConfigError."""
        self._validators = validators
        _validate(self.now, validators)

    def set_address(self, host: str, port: int) -> None:
        """Set where the daemon listens: on the port picked for 0, or on systemd's sockets."""
        with self._lock:
            master = {**self.now.master, "host": host, "port": port}
            self._now = replace(self.now, master=master)

    def reload(self) -> Reload:
        """Load the configuration again; a ConfigError leaves the old one in force.

        Of the settings, only LIVE_SETTINGS change.
        """
        old = self.now
        # Not under the lock: a validator may be slow.
        fresh = load(self._given, self._base)
        live = {name: fresh.master[name] for name in LIVE_SETTINGS}
        merged = replace(
            fresh,
            master={**old.master, **live},
            read_master=old.read_master,
        )
        _validate(merged, self._validators)
        with self._lock:
            self._now = merged
        return Reload(
            [
                f"{SECTION}.{name}"
                for name, value in fresh.master.items()
                if name not in LIVE_SETTINGS and value != old.read_master[name]
            ],
            [override.key for override in self._given.overrides],
            self.read_once,
            isinstance(old.source, str | os.PathLike),
        )

    @property
    def read_once(self) -> list[str]:
        """Paths that were read and can't be read again, such as pipes."""
        return self._given.files.kept

    @property
    def files(self) -> list[str]:
        """Paths that were read."""
        return list(self._given.files.paths)

    @property
    def variables(self) -> list[str]:
        """Names of the environment variables that the configuration may read."""
        return list(self._given.files.variables)

    def redact(self, text: str) -> str:
        """Replace the secrets in a text; none are known before a configuration is loaded."""
        return redact(text)


def _validate(config: Config, validators: Sequence[ValidateHook]) -> None:
    for validator in validators:
        try:
            refuse_unrun(validator(config.config, config.master))
        except ConfigError as error:
            # A surrounding program may print it.
            raise ConfigError(redact(str(error))) from error
        # Whatever it is: the thread that reloads must go on.
        except BaseException as error:
            text = " ".join(error_text(error, redact).split())
            source = None if isinstance(config.source, Mapping) else config.source
            raise ConfigError(
                f"{function_name(validator)}() refused the configuration: {text}", source
            ) from error


def bind_config(factory: Callable[..., T], caller: str) -> Callable[[], T]:
    """Prepare a call of a factory, with the `config` of COMMAND_LINE if it takes a parameter.

    caller: whom to name in errors. Raises ConfigError, and RegistrationError when the factory takes
    more parameters.
    """
    # The parameters of a class are for its instances.
    if not isinstance(factory, type) and accepts(factory, caller, (), ("config",)):
        return partial(factory, ConfigInForce(None).now.config)
    return factory
