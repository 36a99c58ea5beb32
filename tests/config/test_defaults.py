from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import get_type_hints

import pytest

from daemonkit.config.defaults import SETTINGS, Settings
from daemonkit.config.loading import Given, load


def test_the_table_matches_the_typed_settings() -> None:
    assert list(SETTINGS) == [field.name for field in fields(Settings)]
    assert vars(Settings()) == {name: row.default for name, row in SETTINGS.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_passes_its_own_check(name: str) -> None:
    row = SETTINGS[name]

    assert row.check(row.default) == row.default


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1  # type: ignore[misc]


def test_a_default_list_is_not_shared() -> None:
    Settings().hidden_opts.append("x")

    assert Settings().hidden_opts == SETTINGS["hidden_opts"].default == []


def test_attributes_hold_what_was_configured() -> None:
    settings = load(Given({"master": {"port": 3322, "log_level": "info"}})).settings

    assert (settings.port, settings.log_level, settings.host) == (3322, "INFO", "::")
    assert get_type_hints(Settings)["port"] is int
