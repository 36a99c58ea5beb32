"""`daemonkit systemd`: prints a unit file for a daemon."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import click

from ..app import Daemon
from ..config.redaction import HIDDEN
from ..config.secrets import redact
from .loader import names_file
from .options import daemon_options, flag, load_configured
from .queue_options import fail, note

WATCHDOG_SECONDS = 30
"""Time without WATCHDOG=1 after which systemd restarts the daemon."""
STOP_MARGIN = 5
"""Seconds added to the daemon's own deadline, so that it can log what did not stop."""
RESTART_DELAY = 5
"""Seconds; enough to stay below systemd's limit of 5 starts in 10 s."""
UNPRIVILEGED_PORTS = 1024

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
WatchdogSec={watchdog}
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
def systemd(
    app: str,
    config: str | None,
    assignments: tuple[str, ...],
    user: str | None,
    **short: str | None,
) -> None:
    """Print a unit file for a daemon.

    The unit runs the daemon with the arguments of this command, from the current folder, with
    minimal privileges and with timeouts that match its configuration.
    """
    # Before the import: the module may change the current folder.
    folder = os.getcwd()
    arguments = [sys.executable, "-m", "daemonkit", "run", _absolute_target(app)]
    if config is not None:
        # /dev/stdin may be a file, but a different one in each process.
        absolute = os.path.realpath if config.startswith("/dev/") else os.path.abspath
        arguments += ["--config", absolute(config)]
    for name, text in short.items():
        if text is not None:
            arguments += [flag(name), text]
    for assignment in assignments:
        arguments += ["--set", assignment]
    daemon = load_configured(app, config, assignments, short)
    for path in daemon._config.read_once:
        fail(f"{path} can be read only once: copy its content to a file that the unit can name", 2)
    text = unit(daemon, arguments, user, folder)
    shown = redact(text)
    click.echo(shown, nl=False)
    if shown != text:
        note(f"daemonkit: replace {HIDDEN} in the unit; better, use !secret env:NAME or file:PATH")


def unit(daemon: Daemon, arguments: list[str], user: str | None, folder: str) -> str:
    """The text of the unit file; arguments: the command, with absolute paths, run in `folder`."""
    settings = daemon._config.settings
    needed = [folder, sys.prefix, *(a for a in arguments if os.path.isabs(a))]
    inaccessible = (
        []
        if user
        else sorted({c for path in needed if (c := _inaccessible_folder(path)) is not None})
    )
    files = filter(None, (settings.log_file, settings.queue))
    writable = sorted({str(Path(file).resolve().parent) for file in files})
    return UNIT.format(
        file=(re.sub(r"[^A-Za-z0-9:_.-]+", "-", daemon.name).strip("-") or "daemon") + ".service",
        notes="".join(
            f"# {path} is not accessible to other users: use --user, or move the daemon.\n"
            for path in inaccessible
        ),
        description=_escape_percent(" ".join(daemon.name.split())),
        command=" ".join(quote(argument).replace("$", "$$") for argument in arguments),
        folder=_escape_percent(folder),
        watchdog=WATCHDOG_SECONDS,
        stop=f"{settings.shutdown_timeout + STOP_MARGIN:g}",
        restart=RESTART_DELAY,
        user=f"User={_escape_percent(user)}" if user else "DynamicUser=yes",
        capabilities="CAP_NET_BIND_SERVICE" if 0 < settings.port < UNPRIVILEGED_PORTS else "",
        writable=f"ReadWritePaths={' '.join(map(quote, writable))}\n" if writable else "",
    )


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


def _inaccessible_folder(path: str) -> str | None:
    """The outermost folder above `path` that others may not enter, if any."""
    for folder in reversed(Path(path).parents):
        try:
            mode = folder.stat().st_mode
        except OSError:
            return str(folder)
        if not mode & stat.S_IXOTH:
            return str(folder)
    return None
