"""`daemonkit systemd`: prints a unit file for a daemon."""

from __future__ import annotations

import os
import pwd
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from ..app import Daemon
from ..config.access import split_address, unix_path
from ..config.checks import is_address
from ..config.defaults import Settings
from ..config.files import behind_descriptor
from ..config.redaction import HIDDEN
from ..config.secrets import redact
from ..text import is_encodable
from .loader import names_file
from .options import daemon_options, flag, load_configured
from .output import fail, note

WATCHDOG_SECONDS = 30
"""Time without WATCHDOG=1 after which systemd restarts the daemon."""
STOP_MARGIN = 5
"""Seconds added to the daemon's own deadline, so that it can log what did not stop."""
RESTART_DELAY = 5
"""Seconds; enough to stay below systemd's limit of 5 starts in 10 s."""
UNPRIVILEGED_PORTS = 1024
MANAGED = {
    "/var/lib": "StateDirectory",
    "/var/log": "LogsDirectory",
    "/var/cache": "CacheDirectory",
    "/run": "RuntimeDirectory",
}
"""Folders below which systemd makes those of a service, owned by its user (systemd.exec(5))."""

DYNAMIC_USERS = range(61184, 65520)
"""User ids that DynamicUser= picks."""

UNIT = """\
# Made by `daemonkit systemd`; save it as /etc/systemd/system/{file}
{notes}[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
# systemd before 253 ignores the second one; to reload there:
# `systemctl kill -s HUP --kill-who=main {file}`.
Type=notify
Type=notify-reload
NotifyAccess=main
ExecStart={command}
WorkingDirectory={folder}
{environment}WatchdogSec={watchdog}
TimeoutStopSec={stop}
Restart=on-failure
RestartSec={restart}
# A restart doesn't fix a wrong configuration.
RestartPreventExitStatus=2
KillMode=mixed

{user}
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
ProtectHome=read-only
{writable}PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


@click.command()
@daemon_options
@click.option("--user", metavar="NAME", help="User to run as. [default: one made for the service]")
@click.option("--workers", type=click.IntRange(1), help="Run this many processes on one port.")
def systemd(
    app: str,
    config: str | None,
    assignments: tuple[str, ...],
    user: str | None,
    workers: int | None,
    **short: str | None,
) -> None:
    """Print a unit file for a daemon.

    The unit runs the daemon with the arguments of this command, from the current folder, with
    minimal privileges and with timeouts that match its configuration.
    """
    if user is not None and not re.fullmatch(r"[^\s:/\0-\x1f\x7f]+", user):
        raise click.BadParameter(f"{user!r} can't be a user's name", param_hint="--user")
    # Before the import: the module may change the current folder.
    folder = os.getcwd()
    arguments = [sys.executable, "-m", "daemonkit", "run", _absolute_target(app)]
    if config is not None:
        arguments += ["--config", str(behind_descriptor(Path(os.path.abspath(config))))]
    for name, text in short.items():
        if text is not None:
            arguments += [flag(name), text]
    for assignment in assignments:
        arguments += ["--set", assignment]
    if workers is not None:
        arguments += ["--workers", str(workers)]
    daemon = load_configured(app, config, assignments, short)
    for path in daemon._config.read_once:
        fail(f"{path} can be read only once: copy its content to a file that the unit can name", 2)
    text = unit(daemon, arguments, user, folder)
    if not is_encodable(text):
        wrong = next(line for line in text.splitlines() if not is_encodable(line))
        fail(f"systemd reads UTF-8 only, and this line of the unit isn't: {wrong}", 2)
    shown = redact(text)
    click.echo(shown, nl=False)
    if shown != text:
        note(f"daemonkit: replace {HIDDEN} in the unit; better, use !secret env:NAME or file:PATH")


def unit(daemon: Daemon, arguments: list[str], user: str | None, folder: str) -> str:
    """The text of the unit file; arguments: the command, with absolute paths, run in `folder`."""
    settings = daemon._config.settings
    name = re.sub(r"[^A-Za-z0-9:_.-]+", "-", daemon.name).strip("-") or "daemon"
    needed = [folder, sys.prefix, *(a for a in arguments if os.path.isabs(a))]
    needed += daemon._config.files
    sockets = [unix_path(address) for address in (settings.host, settings.admin) if address]
    queue = settings.queue
    paths = (settings.log_file, None if queue and is_address(queue) else queue, *sockets)
    files = [Path(file).resolve() for file in paths if file]
    # A device such as /dev/null is in no folder of the daemon's.
    folders = sorted({str(file.parent) for file in files if not file.is_char_device()})
    managed, writable = _managed(folders, user)
    return UNIT.format(
        file=f"{name}.service",
        notes="".join(f"# {note}\n" for note in _notes(needed, writable, user, name)),
        description=_escape_percent(" ".join(daemon.name.split())),
        command=" ".join(quote(argument).replace("$", "$$") for argument in arguments),
        folder=_escape_percent(folder),
        environment=_environment(daemon._config.variables, name),
        watchdog=WATCHDOG_SECONDS,
        stop=f"{settings.shutdown_timeout + STOP_MARGIN:g}",
        restart=RESTART_DELAY,
        user=f"User={_escape_percent(user)}" if user else "DynamicUser=yes",
        capabilities="CAP_NET_BIND_SERVICE" if _has_low_port(settings) else "",
        writable="".join(
            f"{key}={' '.join(map(quote, values))}\n"
            for key, values in {**managed, "ReadWritePaths": writable}.items()
            if values
        ),
    )


def _environment(variables: list[str], name: str) -> str:
    if not variables:
        return ""
    names = " ".join(", ".join(variables).split())
    return (
        f"# Variables that the configuration reads, as lines NAME=VALUE: {names}\n"
        f"EnvironmentFile=-/etc/{name}.env\n"
    )


def _has_low_port(settings: Settings) -> bool:
    """Whether the daemon listens on a port that needs a capability."""
    ports = [] if unix_path(settings.host) else [settings.port]
    if settings.admin and not unix_path(settings.admin):
        ports.append(split_address(settings.admin)[1])
    return any(0 < port < UNPRIVILEGED_PORTS for port in ports)


def _managed(folders: Iterable[str], user: str | None) -> tuple[dict[str, list[str]], list[str]]:
    """The names of the folders that systemd makes, by directive, and the paths of the others."""
    managed: dict[str, list[str]] = {directive: [] for directive in MANAGED.values()}
    others = []
    for folder in folders:
        top = next((top for top in MANAGED if folder.startswith(f"{top}/")), None)
        # systemd changes the owner of everything in it.
        if top is None or _belongs_to_another(folder, user):
            others.append(folder)
        else:
            # Below it are those of a DynamicUser.
            name = folder.removeprefix(f"{top}/").removeprefix("private/")
            managed[MANAGED[top]].append(name)
    return managed, others


def _belongs_to_another(folder: str, user: str | None) -> bool:
    try:
        owner = os.stat(folder).st_uid
    except OSError:
        return False
    return owner not in (0, _uid(user)) and owner not in DYNAMIC_USERS


def _uid(user: str | None) -> int | None:
    """None also for a user that this machine doesn't know."""
    try:
        return None if user is None else pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _notes(
    needed: Iterable[str], writable: Iterable[str], user: str | None, name: str
) -> Iterator[str]:
    """What has to be done before the unit works."""
    if user is None:
        for path in sorted(set(filter(None, map(_inaccessible, needed)))):
            yield f"{path} is not accessible to other users: use --user, or move the daemon."
    for folder in writable:
        if not os.path.isdir(folder):
            yield f"{folder} does not exist: create it, or use /var/lib/{name}."
        elif not _is_writable(folder, user):
            other = "use --user" if user is None else f"change its owner to {user}"
            yield (
                f"{folder} is not writable for the service's user: {other}, or use "
                f"/var/lib/{name}, which systemd makes."
            )


def _is_writable(folder: str, user: str | None) -> bool:
    """Whether a user may create files in a folder; user: None for one made for the service."""
    found, uid = os.stat(folder), _uid(user)
    if user is None:
        return bool(found.st_mode & stat.S_IWOTH)
    # Its groups may allow it, and it may exist only where the unit is installed.
    return uid in (None, 0, found.st_uid) or bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def quote(argument: str) -> str:
    """Quote a word for a unit file (systemd.syntax(7), QUOTING)."""
    text = _escape_percent(argument)
    if re.fullmatch(r"[A-Za-z0-9_@%+=:,./\[\]-]+", text):
        return text
    escaped = re.sub(r'[\\"]', r"\\\g<0>", text)
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def _escape_percent(text: str) -> str:
    return text.replace("%", "%%")


def _absolute_target(app: str) -> str:
    module, colon, attr = app.partition(":")
    return (os.path.abspath(module) if names_file(module) else module) + colon + attr


def _inaccessible(path: str) -> str | None:
    """The outermost folder above `path` that others may not enter, or a file that they may not
    read, if any."""
    for folder in reversed(Path(path).parents):
        try:
            mode = folder.stat().st_mode
        except OSError:
            return str(folder)
        if not mode & stat.S_IXOTH:
            return str(folder)
    is_secret = os.path.isfile(path) and not os.stat(path).st_mode & stat.S_IROTH
    return path if is_secret else None
