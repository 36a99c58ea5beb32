"""What an operator may do with a running daemon, by HTTP, the page or the terminal."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..config.checks import DEFAULT_LEVEL, duration_text
from ..events.failed import Changed, Selection
from ..exceptions import RegistrationError, Unavailable
from ..monitoring.health import RUNNING, Health
from ..runtime.stacks import stacks
from ..supervision.by_name import ByName
from ..supervision.dependencies import nearest
from ..supervision.states import UnknownSlave
from ..system.log import log_always
from ..system.systemd import NotifySocket
from ..text import shorten, timestamp
from ..types import Pause
from ..web.control import VERBS, Answer
from .assembly import Assembly
from .on_demand import OnDemand
from .reloading import Reloader
from .signal_actions import StopSignals
from .worker_process import RELOADED, REPLACE, WorkerPlace, worker_place

KEPT = 50
"""Actions that are listed."""
LONGEST_ACTION = 300
"""Characters of an action and of its outcome that are logged and listed."""
RESTART_WAIT = 3.0
RELOAD_WAIT = 10.0
"""Seconds that an answer waits for the outcome; an HTTP thread waits with it."""
OF_ONE = ("level", "pause", "resume", "restart", "run-now", "stacks")
"""Verbs that concern only the worker that is asked, if there are several."""
ANY_TIME = ("stop", "level", "stacks", "show")
"""Verbs that help with a daemon that hangs while it starts or stops."""


class Control:
    """Carries out what is asked, logs it, and remembers it.

    assembly, on_demand: have the parts that are in use now.
    """

    def __init__(
        self,
        logger: logging.Logger,
        health: Health,
        stop: StopSignals,
        reloader: Reloader,
        assembly: Assembly,
        on_demand: OnDemand,
    ) -> None:
        self.events_paused: Pause | None = None
        self._logger = logger
        self._health = health
        self._stop_signals = stop
        self._reloader = reloader
        self._levels = assembly.levels
        self._assembly = assembly
        self._on_demand = on_demand
        self._lock = threading.Lock()
        self._paused_slaves: set[str] = set()
        self._actions: deque[dict[str, Any]] = deque(maxlen=KEPT)

    def perform(self, verb: str, asked: Mapping[str, Any], by: str) -> Answer:
        """Carry out a verb with the checked fields of a request; by: who asks.

        Raises Unavailable while the daemon starts or stops.
        """
        try:
            if verb not in ANY_TIME and self._health.phase != RUNNING:
                raise Unavailable(f"The daemon is {self._health.phase}")
            answer: Answer = getattr(self, "_" + verb.replace("-", "_"))(asked, by)
            if verb in OF_ONE and self._worker is not None:
                answer = answer._replace(message=f"{answer.message} ({self._worker})")
        except Unavailable as error:
            self._note(verb, asked, by, Answer(503, str(error)))
            raise
        except UnknownSlave as error:
            answer = Answer(404, _sentence(error))
        except RegistrationError as error:
            answer = Answer(409, _sentence(error))
        self._note(verb, asked, by, answer)
        return answer

    def _note(self, verb: str, asked: Mapping[str, Any], by: str, answer: Answer) -> None:
        action = shorten(" ".join([verb, *_arguments(asked)]), LONGEST_ACTION)
        is_shown = not VERBS[verb].is_change and answer.is_ok
        outcome = "" if is_shown else shorten(str(answer.message), LONGEST_ACTION)
        # Even if the action was to set a level that leaves it out.
        log_always(
            self._logger,
            logging.INFO if answer.is_ok else logging.WARNING,
            "Control: %s, by %s%s",
            action,
            by,
            f": {outcome}" if outcome else "",
        )
        if VERBS[verb].is_change:
            # A text to look for may be one of an event, which not everyone may see.
            hidden = {**asked, "error": "..."} if "error" in asked else asked
            self._actions.append(
                {
                    "time": timestamp(datetime.now()),
                    "action": shorten(" ".join([verb, *_arguments(hidden)]), LONGEST_ACTION),
                    "by": by,
                    "ok": answer.is_ok,
                    "outcome": outcome,
                }
            )

    # What `/status` shows

    def shown(self) -> dict[str, Any]:
        """What is paused, the log levels that were set, a reload that failed, and the last
        actions."""
        failure = self._reloader.failure
        return {
            "paused": self.paused(),
            "levels": self._levels.shown(),
            "reload_failed": failure and {"time": timestamp(failure.time), "error": failure.error},
            "actions": list(self._actions),
        }

    def paused(self) -> dict[str, Any]:
        """What is paused, since when and by whom."""
        shown: dict[str, Any] = {}
        if self.events_paused is not None:
            shown["events"] = _pause_shown(self.events_paused)
        supervisor = self._assembly.supervisor
        # Probes ask, too, and there may be a thousand slaves.
        if supervisor is not None and self._paused_slaves:
            slaves = {
                slave.name: _pause_shown(slave.calls.paused)
                for slave in supervisor.slaves()
                if slave.calls is not None and slave.calls.paused is not None
            }
            shown |= {"slaves": slaves} if slaves else {}
        return shown

    def pause_line(self) -> str:
        """What is paused, in one line; empty if nothing is."""
        paused = self.paused()
        items = {f"slave {name}": pause for name, pause in paused.pop("slaves", {}).items()}
        items = paused | items
        return ", ".join(
            f"{what} (by {pause['by']} since {pause['since'][:19]})"
            for what, pause in items.items()
        )

    # Verbs

    def _reload(self, _: Mapping[str, Any], __: str) -> Answer:
        outcome = self._reloader.reload_and_wait(RELOAD_WAIT)
        if outcome is not None and not outcome.is_ok:
            return Answer(409, outcome.text)
        text = "The configuration is being reloaded" if outcome is None else outcome.text
        if self._worker is not None:
            # What one has accepted, all are to have.
            parent = NotifySocket(os.environ)
            parent.send(RELOADED)
            parent.close()
            text += f" ({self._worker}; the others are asked to reload, too)"
        return Answer(200, text)

    def _stop(self, _: Mapping[str, Any], by: str) -> Answer:
        if self._worker is None:
            self._stop_signals.ask(f"asked by {by} (control)")
        else:
            os.kill(self._worker.parent, signal.SIGTERM)
        return Answer(200, "The daemon is stopping")

    def _replace(self, _: Mapping[str, Any], __: str) -> Answer:
        if self._worker is None:
            text = "This daemon is one process: there are no workers (daemonkit run --workers)"
            return Answer(409, text)
        os.kill(self._worker.parent, REPLACE)
        return Answer(200, f"The {self._worker.of} workers are being replaced, one after another")

    @property
    def _worker(self) -> WorkerPlace | None:
        return worker_place(os.environ)

    def _level(self, asked: Mapping[str, Any], by: str) -> Answer:
        name, level = asked.get("logger") or self._logger.name, asked["level"]
        seconds = asked.get("for")
        known = _loggers(self._logger.name)
        # A slave's is named after both.
        name = known.get(name, name)
        if name not in known.values():
            return Answer(404, f"There is no logger {name}{nearest(name, known)}")
        if level == DEFAULT_LEVEL:
            self._levels.revert(name)
            return Answer(200, f"The log level of {name} is {self._levels.level_of(name)} again")
        self._levels.set(name, level, seconds, by)
        until = "until the daemon stops" if seconds is None else f"for {duration_text(seconds)}"
        return Answer(200, f"The log level of {name} is {level} {until}")

    def _pause(self, asked: Mapping[str, Any], by: str) -> Answer:
        if "slave" in asked:
            name = asked["slave"]
            is_new = self._by_name.pause(name, by)
            self._paused_slaves.add(name)
            self._health.changed()
            return _paused(f"The slave {name} is", is_new)
        with self._lock:
            is_new = self.events_paused is None
            if is_new:
                self._on_demand.queue.pause()
                self.events_paused = Pause(datetime.now(), by)
        self._health.changed()
        return _paused("Events are", is_new)

    def _resume(self, asked: Mapping[str, Any], _: str) -> Answer:
        if "slave" in asked:
            name = asked["slave"]
            was_paused = self._by_name.resume(name)
            self._paused_slaves.discard(name)
            text = f"The slave {name} is"
        else:
            with self._lock:
                was_paused, self.events_paused = self.events_paused is not None, None
                self._on_demand.queue.resume()
            text = "Events are"
        self._health.changed()
        return Answer(200, f"{text} {'no longer' if was_paused else 'not'} paused")

    def _restart(self, asked: Mapping[str, Any], _: str) -> Answer:
        name = asked["slave"]
        runs_again = self._by_name.restarted(name, RESTART_WAIT)
        text = {
            True: "runs again",
            False: "was restarted, and has ended again",
            None: "is being restarted; it hasn't stopped yet",
        }
        return Answer(200, f"The slave {name} {text[runs_again]}")

    def _run_now(self, asked: Mapping[str, Any], _: str) -> Answer:
        name = asked["slave"]
        if self._by_name.run_now(name):
            return Answer(200, f"The slave {name} is called now")
        return Answer(200, f"The slave {name} is called once the call that runs now has ended")

    def _stacks(self, asked: Mapping[str, Any], _: str) -> Answer:
        return Answer(200, self._by_name.stack(asked["slave"]) if "slave" in asked else stacks())

    def _retry(self, asked: Mapping[str, Any], _: str) -> Answer:
        changed = self._on_demand.queue.failed_events.retry(Selection.of(asked))
        return _changed(changed, "retried" + " after the pause" * bool(self.events_paused))

    def _drop(self, asked: Mapping[str, Any], _: str) -> Answer:
        changed = self._on_demand.queue.failed_events.drop(Selection.of(asked))
        return _changed(changed, "dropped")

    def _show(self, asked: Mapping[str, Any], _: str) -> Answer:
        found = self._on_demand.queue.failed_events.find(asked["id"])
        if found is None:
            return Answer(404, f"There is no dead letter {asked['id']}")
        return Answer(200, found.shown(whole=True))

    @property
    def _by_name(self) -> ByName:
        supervisor = self._assembly.supervisor
        if supervisor is None:
            raise Unavailable("The daemon is starting")
        return supervisor.by_name


def _arguments(asked: Mapping[str, Any]) -> list[str]:
    """The fields of a request, as they would be in a command."""
    shown: list[str] = []
    for name, value in asked.items():
        if name == "ids":
            shown += map(str, value)
        elif value is True:
            shown.append(name)
        elif name == "for":
            shown.append(f"for {duration_text(value)}")
        else:
            shown.append(f"{name} {value}" if name in ("state", "error") else str(value))
    return shown


def _loggers(own: str) -> dict[str, str]:
    """The loggers that there are, by their names, and those below `own` also by their last part."""
    found = {own: own, **{name: name for name in list(logging.root.manager.loggerDict)}}
    below = f"{own}."
    short = {n.removeprefix(below): n for n in found if n.startswith(below)}
    return {**short, **found}


def _pause_shown(pause: Pause) -> dict[str, Any]:
    return {"since": timestamp(pause.since), "by": pause.by}


def _paused(text: str, is_new: bool) -> Answer:
    return Answer(200, f"{text} {'' if is_new else 'already '}paused")


def _changed(changed: Changed, what: str) -> Answer:
    number, unknown, cut = changed
    text = f"{number} failed event{' is' if number == 1 else 's are'} {what}"
    if unknown:
        text += f"; not there: {', '.join(map(str, unknown))}"
    if cut:
        text += f"; not kept whole: {', '.join(map(str, cut))}"
    if not number and (unknown or cut):
        return Answer(404, text)
    return Answer(200, text, {"count": number})


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
