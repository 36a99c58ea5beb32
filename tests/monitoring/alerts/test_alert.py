from __future__ import annotations

import pytest

from daemonkit.monitoring.alerts.alert import Alert, check_status, check_texts


def test_an_alert_is_repeated_if_its_status_was_sent_before() -> None:
    changed = Alert("host", "disk", "CRIT", "no room", previous="OK")

    assert not changed.is_repeated
    assert changed._replace(previous="CRIT").is_repeated


def test_the_log_shows_an_alert_in_a_few_words() -> None:
    assert str(Alert("web-1", "disk", "CRIT", "no room")) == "disk on web-1: CRIT, no room"


@pytest.mark.parametrize("status", ["crit", "BAD", "", None, 2, ["OK"]])
def test_another_status_is_a_value_error(status: object) -> None:
    with pytest.raises(ValueError, match=r"^an alert's status is one of OK, INFO, WARN, CRIT, not"):
        check_status(status, "an alert's")


def test_what_is_not_a_string_is_named() -> None:
    check_texts(service="disk", description="")
    with pytest.raises(TypeError, match=r"^the service of an alert must be a string, not 1 \(int"):
        check_texts(service=1, description=2)
