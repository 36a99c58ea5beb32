from __future__ import annotations

from typing import Any

import pytest

from daemonkit import Daemon, RegistrationError
from daemonkit.testing import running

from .slaves import Worker


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_restarts": 3},
            "the slaves of the group 'g' have one restart counter: max_restarts is 5 for 'first' "
            "and 3 for 'second'; give them the same",
        ),
        (
            {"backoff": 2},
            "the slaves of the group 'g' have one restart counter: backoff is (1.0, 60.0) for "
            "'first' and (2, 60.0) for 'second'; give them the same",
        ),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_the_members_of_a_group_must_have_the_same_restart_options(
    app: Daemon, options: Any, message: str, late: bool
) -> None:
    app.add_slave(Worker, name="first", group="g")
    if late:
        with running(app), pytest.raises(RegistrationError) as caught:
            app.run_slave(Worker, name="second", group="g", **options)
    else:
        app.add_slave(Worker, name="second", group="g", **options)
        with pytest.raises(RegistrationError) as caught, running(app):
            pass

    assert str(caught.value) == message
