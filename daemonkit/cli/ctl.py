"""`daemonkit ctl`: tells a running daemon what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import wraps
from typing import Any, NamedTuple

import click

from ..config.checks import DEFAULT_LEVEL, LEVEL_TIME, LEVELS, numeric
from .client import Answer
from .completion import complete_set_levels
from .formatting import failed_details
from .inputs import is_interactive
from .output import confirm, fail, say
from .refusal import refusal
from .slave_names import complete_periodic, complete_slaves, complete_what
from .target import Target
from .target_options import target_options
from .terminal import printable

TIMEOUT = 60.0
"""Seconds: a restart waits for the slave to stop."""
EVENTS = "events"
ID = click.IntRange(0)
ID.name = "event ID"


class Control(NamedTuple):
    """Sends verbs to a daemon."""

    target: Target
    timeout: float

    def send(self, verb: str, **arguments: Any) -> str:
        """Send a verb, and return what the daemon answers as text; see `ask`."""
        message = self.ask(verb, **arguments)
        return message if isinstance(message, str) else json.dumps(message)

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Send a verb, and return what the daemon answers; exits if it refuses.

        Arguments that are None are left out. Raises DaemonkitError.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        client = self.target.client("control", self.timeout)
        try:
            answer = client.post(f"/control/{verb}", json.dumps(given).encode())
        finally:
            client.close()
        if not _is_done(answer):
            fail(refusal(client, answer))
        return answer.message()


def _is_done(answer: Answer) -> bool:
    value = answer.json()
    return answer.status == 200 and isinstance(value, dict) and value.get("result") is True


@click.group()
@click.option("--url", metavar="URL", help="The daemon's URL.")
@target_options(TIMEOUT)
@click.pass_context
def ctl(context: click.Context, /, url: str | None, target: Target, timeout: float) -> None:
    """Tell a running daemon what to do.

    The daemon is that of --url, --config, $DAEMONKIT_URL or http://localhost:5151; the options may
    be given before or after the verb. It needs the right `control`: a token for it, or the same
    machine. Exit status: 0 if it was done, 1 if the daemon refuses, 3 if it can't be reached.
    """
    context.obj = Control(target._replace(url=url), timeout)


def verb(name: str, *, shows: bool = False) -> Callable[[Callable[..., str]], click.Command]:
    """A verb of the group: `function(control, ...)` returns the text to print; shows: that is what
    it is for."""

    def add(function: Callable[..., str]) -> click.Command:
        @click.option("--url", metavar="URL", help="The daemon's URL.")
        @target_options(TIMEOUT)
        @click.pass_context
        @wraps(function)
        def run(
            context: click.Context, /, url: str | None, target: Target, timeout: float, **more: Any
        ) -> None:
            general: Control = context.obj
            own = target._replace(url=url)
            if not _is_given(context, "timeout"):
                timeout = general.timeout
            chosen = Target(*(mine or its for mine, its in zip(own, general.target)))  # noqa: B905
            text = function(Control(chosen, timeout), **more)
            with nullcontext() if shows else suppress(SystemExit):
                say([printable(text.rstrip("\n"), keep="\n")])

        return ctl.command(name)(run)

    return add


def _is_given(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is not click.core.ParameterSource.DEFAULT


@verb("reload")
def reload(control: Control) -> str:
    """Load the configuration again, as SIGHUP does."""
    return control.send("reload")


@verb("stop")
def stop(control: Control) -> str:
    """Stop the daemon, as SIGTERM does."""
    return control.send("stop")


@verb("replace")
def replace(control: Control) -> str:
    """Replace the workers of `daemonkit run --workers`, one after another, without refusing a
    request."""
    return control.send("replace")


@verb("level")
@click.argument("words", nargs=-1, metavar="[LOGGER] LEVEL", shell_complete=complete_set_levels)
@click.option("--for", "period", metavar="TIME", help="Then it is reset: 30s, 10m, 1h, or seconds.")
def level(control: Control, words: tuple[str, ...], period: str | None) -> str:
    """Set the log level: of the daemon's own log, or of LOGGER.

    DEFAULT goes back to the one before.
    """
    *loggers, name = words or ("",)
    levels = (*LEVELS, DEFAULT_LEVEL)
    if len(words) > 2 or name.upper() not in levels:
        raise click.UsageError(f"give [LOGGER] LEVEL; LEVEL is one of {', '.join(levels)}")
    seconds = None if period is None else _seconds(period)
    logger = next(iter(loggers), None)
    return control.send("level", level=name.upper(), logger=logger, **{"for": seconds})


def _seconds(text: str) -> float:
    try:
        return LEVEL_TIME(numeric(text))
    except ValueError:
        wanted = f"{LEVEL_TIME.text}, such as {LEVEL_TIME.examples}"
        raise click.BadParameter(f"{text!r} is not {wanted}", param_hint="--for") from None


@verb("pause")
@click.argument("what", metavar="events|SLAVE", shell_complete=complete_what)
def pause(control: Control, what: str) -> str:
    """Pause the event handler, or the calls of a periodic SLAVE.

    Events are still accepted, and wait. For a slave with the name `events`, use the page or HTTP.
    """
    return control.send("pause", **_what(what))


@verb("resume")
@click.argument("what", metavar="events|SLAVE", shell_complete=complete_what)
def resume(control: Control, what: str) -> str:
    """Resume what was paused."""
    return control.send("resume", **_what(what))


def _what(what: str) -> dict[str, Any]:
    return {"events": True} if what == EVENTS else {"slave": what}


@verb("restart")
@click.argument("slave", shell_complete=complete_slaves)
def restart(control: Control, slave: str) -> str:
    """Ask a SLAVE to stop, and start it again."""
    return control.send("restart", slave=slave)


@verb("run-now")
@click.argument("slave", shell_complete=complete_periodic)
def run_now(control: Control, slave: str) -> str:
    """Call a periodic SLAVE now."""
    return control.send("run-now", slave=slave)


@verb("stacks", shows=True)
@click.argument("slave", required=False, shell_complete=complete_slaves)
def stacks(control: Control, slave: str | None) -> str:
    """Print where all threads are now, or that of a SLAVE."""
    return control.send("stacks", slave=slave)


def failed_events(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments that say which failed events are meant."""
    for option in (
        click.option(
            "--error", metavar="TEXT", help="With --all: only those with TEXT in the error."
        ),
        click.option(
            "--state",
            type=click.Choice(["dead", "retrying"]),
            help="With --all: which of them. [default: dead]",
        ),
        click.option("--all", "is_all", is_flag=True, help="All dead letters."),
        click.argument("ids", type=ID, nargs=-1, metavar="[ID]..."),
    ):
        function = option(function)
    return function


def _which(
    ids: tuple[int, ...], is_all: bool, state: str | None, error: str | None
) -> dict[str, Any]:
    if bool(ids) == is_all:
        raise click.UsageError("give either event IDs or --all")
    if ids and (state or error):
        raise click.UsageError("--state and --error require --all")
    return {"all": True, "state": state, "error": error} if is_all else {"ids": list(ids)}


@verb("show", shows=True)
@click.argument("id", type=ID)
def show(control: Control, id: int) -> str:
    """Show everything about a failed event."""
    found = control.ask("show", id=id)
    return "\n".join(failed_details(found)) if isinstance(found, dict) else json.dumps(found)


@verb("retry")
@failed_events
def retry(
    control: Control, ids: tuple[int, ...], is_all: bool, state: str | None, error: str | None
) -> str:
    """Retry failed events now: those with these IDs, or all dead letters."""
    return control.send("retry", **_which(ids, is_all, state, error))


@verb("drop")
@failed_events
@click.option("--yes", "-y", "is_sure", is_flag=True, help="Don't ask for confirmation.")
def drop(
    control: Control,
    ids: tuple[int, ...],
    is_all: bool,
    state: str | None,
    error: str | None,
    is_sure: bool,
) -> str:
    """Remove failed events: those with these IDs, or all dead letters."""
    which = _which(ids, is_all, state, error)
    if not is_sure and is_interactive():
        named = f" with {error!r} in the error" if error else ""
        kind = {"retrying": "events to be retried"}.get(state or "", "dead letters")
        what = f"all {kind}{named}" if is_all else f"the events {', '.join(map(str, ids))}"
        confirm(f"Drop {what}?")
    return control.send("drop", **which)
