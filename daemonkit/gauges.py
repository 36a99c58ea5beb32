"""Metrics of the user's: gauges that are evaluated when they are asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

from .callables import accepts, function_name, require_function
from .exceptions import RegistrationError
from .hooks import Freezable, bare_or_called
from .text import describe, plain

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

F = TypeVar("F", bound=Callable[[], Any])

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*"
OWN = "daemonkit_"
MISSING = "metrics need prometheus-client: pip install 'daemonkit[metrics]'"


class Gauge(NamedTuple):
    """A gauge as it was registered; see `GaugeRegistrars.metric`."""

    name: str
    help: str
    labels: tuple[str, ...]
    function: Callable[[], Any]


@dataclass(eq=False, repr=False)
class Gauges:
    """Those of one daemon, and the registry of its other metrics, if it has one."""

    registered: list[Gauge] = field(default_factory=list)
    registry: CollectorRegistry | None = None


class GaugeRegistrars(Freezable):
    """Registers gauges; see `Registrars`."""

    def __init__(self) -> None:
        super().__init__()
        self._gauges = Gauges()

    @overload
    def metric(self, function: F) -> F: ...
    @overload
    def metric(
        self, *, name: str | None = None, help: str | None = None, labels: Sequence[str] = ()
    ) -> Callable[[F], F]: ...
    def metric(
        self,
        function: Any = None,
        *,
        name: str | None = None,
        help: str | None = None,
        labels: Sequence[str] = (),
    ) -> Any:
        """Register a gauge of `/metrics`: a function that returns a number, or, with labels, a
        mapping of their values to numbers.

        name: the metric's, by default the function's; help: by default the first line of its
        docstring; labels: their names. With several labels, a key is a tuple of their values.
        """
        return bare_or_called(
            function, lambda f: self.add_metric(f, name=name, help=help, labels=labels)
        )

    def add_metric(
        self,
        function: Callable[[], Any],
        *,
        name: str | None = None,
        help: str | None = None,
        labels: Sequence[str] = (),
    ) -> None:
        """Register a gauge; see `metric`."""
        self._check_open("a metric")
        require_function(function, "metric")
        accepts(function, "metric", ())
        key = function_name(function) if name is None else name
        if not isinstance(key, str) or not re.fullmatch(_NAME, key) or key.startswith(OWN):
            raise RegistrationError(
                f"a metric's name has letters, digits and _, and doesn't begin with {OWN}: "
                f"not {describe(key)}"
            )
        if any(key == other.name for other in self._gauges.registered):
            raise RegistrationError(
                f"a metric named {key!r} is already registered; choose another by name="
            )
        if isinstance(labels, str) or not all(
            isinstance(label, str) and re.fullmatch(_LABEL, label) for label in labels
        ):
            raise RegistrationError(
                f"labels must be a list of names of letters, digits and _, not {describe(labels)}"
            )
        text = help or (function.__doc__ or "").strip().partition("\n")[0] or key
        self._gauges.registered.append(Gauge(key, plain(text), tuple(labels), function))

    @property
    def metrics(self) -> CollectorRegistry:
        """The registry for metrics made with prometheus-client, which `/metrics` shows, too: pass
        it as their `registry`. Raises RegistrationError without the extra `metrics`."""
        if self._gauges.registry is None:
            try:
                from prometheus_client import CollectorRegistry  # noqa: PLC0415
            except ImportError:
                raise RegistrationError(MISSING) from None
            self._gauges.registry = CollectorRegistry()
        return self._gauges.registry
