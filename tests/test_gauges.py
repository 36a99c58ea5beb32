from __future__ import annotations

import sys
from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError
from daemonkit.gauges import Gauge
from daemonkit.testing import running


def test_a_gauge_is_named_after_its_function_unless_it_is_given_a_name() -> None:
    app = Daemon("app")

    @app.metric
    def depth() -> int:
        """How deep.

        In metres.
        """
        return 3

    @app.metric(name="users", help="How many.", labels=["plan"])
    def count() -> dict[str, int]:
        return {"free": 1}

    app.add_metric(len_of := lambda: 1, name="length")

    assert (depth(), count()) == (3, {"free": 1})
    assert app._gauges.registered == [
        Gauge("depth", "How deep.", (), depth),
        Gauge("users", "How many.", ("plan",), count),
        Gauge("length", "length", (), len_of),
    ]


def number() -> int:
    return 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "1x"}, "a metric's name has letters, digits and _, and doesn't begin with daemonkit_: not '1x' (str)"),
        ({"name": "daemonkit_x"}, "a metric's name has letters, digits and _, and doesn't begin with daemonkit_: not 'daemonkit_x' (str)"),
        ({"labels": "plan"}, "labels must be a list of names of letters, digits and _, not 'plan' (str)"),
        ({"labels": ["__x"]}, "labels must be a list of names of letters, digits and _, not ['__x'] (list)"),
    ],
)  # fmt: skip
def test_a_wrong_registration_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RegistrationError) as raised:
        Daemon("app").add_metric(number, **options)

    assert str(raised.value) == message


def test_what_isn_t_possible_is_said() -> None:
    app = Daemon("app")
    app.add_metric(number)
    for function, message in (
        (number, "a metric named 'number' is already registered"),
        (3, "metric"),
        (lambda x: x, "metric"),
    ):
        with pytest.raises(RegistrationError, match=message):
            app.add_metric(function)  # type: ignore[arg-type]
    with running(app), pytest.raises(RegistrationError, match="once the daemon has started"):
        app.add_metric(number, name="other")


def test_without_the_extra_the_registry_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)

    with pytest.raises(RegistrationError, match=r"pip install 'daemonkit\[metrics\]'"):
        _ = Daemon("app").metrics
