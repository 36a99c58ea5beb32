"""Everything that a start does with a daemon before it opens or starts anything."""

from __future__ import annotations

import inspect as python
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..app import Daemon
from ..callables import function_name
from ..config.checks import is_address
from ..config.defaults import Settings
from ..config.lint import warnings_for
from ..config.origins import ShownOption, shown_options
from ..exceptions import RegistrationError, StartError, missing_extra
from ..runtime.timer import Timer
from ..supervision.restart import Intensity
from ..supervision.slave import Slave
from ..supervision.spec import SlaveSpec
from ..supervision.supervisor import Supervisor
from ..web.routes import ENDPOINTS, ROUTES


class SlaveFacts(NamedTuple):
    """A slave; runs: `once`, or `every 60 s`; kind: `function`, `coroutine` or `class`."""

    name: str
    kind: str
    runs: str
    restart: str
    after: list[str]
    bound: bool
    group: str | None


class RouteFacts(NamedTuple):
    """A route; right: the one that it needs, None also for the user's own routes."""

    rule: str
    methods: list[str]
    endpoint: str
    right: str | None


class Inspection(NamedTuple):
    """What was found out about a daemon that could start."""

    name: str
    handler: str
    warnings: list[str]
    configuration: list[ShownOption]
    slaves: list[SlaveFacts]
    routes: list[RouteFacts]


def inspect(daemon: Daemon) -> Inspection:
    """Check a configured daemon in the order of a start; raises DaemonkitError like that."""
    config = daemon._config
    settings = config.start_settings()
    _check_log_file(settings.log_file)
    config.validate(daemon._hooks.validate)
    if settings.queue is not None:
        _check_queue(settings.queue)
    handler = daemon._event_handler().function
    specs = daemon._registry.slaves
    _check_slaves(specs, daemon, settings)
    try:
        daemon.flask.seal()
    except Exception as error:
        raise RegistrationError(f"cannot register the routes: {error}") from error
    return Inspection(
        daemon.name,
        function_name(handler),
        warnings_for(config.now),
        shown_options(config.now),
        [_facts(spec) for spec in in_starting_order(specs)],
        sorted(_routes(daemon)),
    )


def _check_queue(queue: str) -> None:
    if is_address(queue):
        try:
            from ..events.shared.address import parse  # noqa: PLC0415
        except ImportError as error:
            raise missing_extra(error) from None
        # The engine may be away, now and at the start.
        parse(queue)
    else:
        # Imports SQLite.
        from ..events.durable.database import check_path  # noqa: PLC0415

        check_path(queue, create=True)


def _check_log_file(path: str | None) -> None:
    if path is None:
        return
    folder = os.path.dirname(path) or "."
    reason = ""
    if os.path.isdir(path):
        reason = "Is a directory"
    elif not os.path.isdir(folder):
        reason = "No such file or directory"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        reason = "Permission denied"
    if reason:
        raise StartError(f"cannot open the log file {path}: {reason}; see master.log_file")


def _check_slaves(specs: Sequence[SlaveSpec], daemon: Daemon, settings: Settings) -> None:
    """Raise RegistrationError for slaves that don't go together."""

    def ignore(*_: object) -> None: ...

    Supervisor(
        specs,
        daemon,
        Timer(daemon.logger),
        of_all=Intensity(settings.max_restarts, settings.within),
        stop_timeout=settings.shutdown_timeout,
        gave_up=ignore,
        done=ignore,
        changed=ignore,
        freeze=lambda value: value,
    )


def in_starting_order(specs: Sequence[SlaveSpec]) -> list[SlaveSpec]:
    """The slaves, each behind those that it starts after; otherwise as they were registered."""
    left, order, names = list(specs), list[SlaveSpec](), set[str]()
    while left:
        spec = next(spec for spec in left if names.issuperset(spec.after))
        left.remove(spec)
        order.append(spec)
        names.add(spec.name)
    return order


def _facts(spec: SlaveSpec) -> SlaveFacts:
    is_async = python.iscoroutinefunction(spec.function or spec.cls.run)
    kind = "class" if spec.cls is not Slave else "coroutine" if is_async else "function"
    runs = "once" if spec.every is None else f"every {spec.every:g} s"
    restart, after = spec.policy.restart, list(spec.after)
    return SlaveFacts(spec.name, kind, runs, restart, after, spec.bound, spec.group)


def _routes(daemon: Daemon) -> Iterator[RouteFacts]:
    for path, route in ROUTES.items():
        yield RouteFacts(f"/{path}", [route.method], f"/{path}", route.right)
    prefix = f"{daemon.blueprint.name}."
    for rule in daemon.flask.url_map.iter_rules():
        if rule.endpoint not in ENDPOINTS:
            methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
            yield RouteFacts(rule.rule, methods, rule.endpoint.removeprefix(prefix), None)
