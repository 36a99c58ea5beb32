from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemonkit import ConfigError, Daemon, Secret
from daemonkit.config.alerts import ALERTS, Target, When, parse_targets, parse_when
from daemonkit.config.redaction import HIDDEN
from daemonkit.config.secrets import redact

HOOK = "https://hooks.example/T123/hush-hush"


def refusal(value: Any) -> str:
    with pytest.raises(ValueError, match="^(must|has) ") as caught:
        ALERTS(value)
    return str(caught.value)


# Targets


def test_each_target_has_a_kind_and_a_name() -> None:
    given = {
        "to": [
            "juggler",
            "alertmanager:http://am:9093",
            "webhook:https://one.example/x?y=z",
            "webhook:https://two.example",
            {"alertmanager": "http://am2:9093"},
        ]
    }

    assert ALERTS(given) == given
    assert parse_targets(given) == [
        Target("juggler", "juggler", ""),
        Target("alertmanager", "alertmanager", "http://am:9093"),
        Target("webhook", "webhook", "https://one.example/x?y=z"),
        Target("webhook", "webhook-2", "https://two.example"),
        Target("alertmanager", "alertmanager-2", "http://am2:9093"),
    ]


@pytest.mark.parametrize(
    "item", [Secret(f"webhook:{HOOK}"), {"webhook": Secret(HOOK)}], ids=["all", "url"]
)
def test_an_address_may_be_a_secret(item: Any) -> None:
    app = Daemon("app", {"master": {"alerts": {"to": [item]}}})
    (target,) = parse_targets(app.master_config["alerts"])

    assert isinstance(target.url, Secret)
    assert str(target.url) == HOOK
    assert redact(f"see {HOOK}") == f"see {HIDDEN}"
    assert HOOK not in str(app._config.now.visible())


def test_the_password_in_an_address_is_hidden() -> None:
    to = ["alertmanager:http://user:hush-hush@am", {"webhook": "https://hush-two@host/"}]
    app = Daemon("app", {"master": {"alerts": {"to": to}}})

    assert app._config.now.visible()["master_config"]["alerts"] == {
        "to": [f"alertmanager:http://user:{HIDDEN}@am", {"webhook": f"https://{HIDDEN}@host/"}]
    }
    assert redact("hush-hush and hush-two") == f"{HIDDEN} and {HIDDEN}"


A_TARGET = "must have `juggler`, `alertmanager:URL` or `webhook:URL` in `to`"
WEBHOOK_URL = "must have an http or https URL behind `webhook:` in `to`"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("juggler", "must have a list as `to`"),
        ({"webhook": HOOK}, "must have a list as `to`"),
        (None, "must have a list as `to`"),
        (["slack:https://host"], A_TARGET),
        (["juggler:http://host"], A_TARGET),
        (["https://host"], A_TARGET),
        ([""], A_TARGET),
        ([7], A_TARGET),
        ([{}], A_TARGET),
        ([{"webhook": HOOK, "alertmanager": HOOK}], A_TARGET),
        (["webhook"], WEBHOOK_URL),
        (["webhook:host"], WEBHOOK_URL),
        (["webhook:ftp://host"], WEBHOOK_URL),
        ([{"webhook": None}], WEBHOOK_URL),
        ([Secret("webhook:")], WEBHOOK_URL),
        (["juggler", "juggler"], "must have no target twice in `to`"),
        ([f"webhook:{HOOK}", {"webhook": HOOK}], "must have no target twice in `to`"),
    ],
)
def test_wrong_targets_are_refused(to: Any, message: str) -> None:
    assert refusal({"to": to}) == message


# Conditions


def test_each_condition_has_a_limit() -> None:
    given = {
        "when": {"unhealthy": "1m", "oldest_age": "5m", "dead_letters": 1, "queue_full": "80%"}
    }

    assert ALERTS(given) == given
    assert parse_when(given) == When(60, 300, 1, 0.8)


def test_what_is_not_given_raises_no_alerts() -> None:
    assert ALERTS({}) == {}
    assert parse_targets({}) == []
    assert parse_when({}) == When(None, None, None, None)
    assert parse_when({"when": {"queue_full": "2.5%"}}) == When(queue_full=0.025)


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ([], "must have a mapping of conditions to limits as `when`"),
        (
            {"unhealthy": "soon"},
            "has a wrong `unhealthy` in `when`, which must be a duration of 0..86400 seconds, such "
            "as 30, 500ms, 30s, 5m or 1h, not 'soon' (str)",
        ),
        (
            {"oldest_age": 0},
            "has a wrong `oldest_age` in `when`, which must be a duration of 0.1..604800 seconds, "
            "such as 30, 500ms, 30s, 5m or 1h, not 0 (int)",
        ),
        (
            {"dead_letters": 0},
            "has a wrong `dead_letters` in `when`, which must be an int >= 1, not 0 (int)",
        ),
        (
            {"queue_full": 80},
            "has a wrong `queue_full` in `when`, which must be a percentage above 0% and up to "
            "100%, such as 80%, not 80 (int)",
        ),
    ],
)
def test_wrong_limits_are_refused(when: Any, message: str) -> None:
    assert refusal({"when": when}) == message


@pytest.mark.parametrize("limit", ["0%", "101%", "%", "80", "80 %", "-1%", "1e1%", 0.8, None])
def test_a_share_of_the_queue_is_a_percentage(limit: Any) -> None:
    assert refusal({"when": {"queue_full": limit}}).startswith("has a wrong `queue_full`")


# The mapping


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be a mapping with `to` and `when`, not [] (list)"),
        (None, "must be a mapping with `to` and `when`, not None (NoneType)"),
        ({"too": []}, "has an unknown key 'too'; did you mean 'to'?"),
        ({"target": []}, "has an unknown key 'target'; use to, when"),
        ({1: []}, "has an unknown key 1; use to, when"),
        (
            {"when": {"unhealthly": 1}},
            "has an unknown condition 'unhealthly'; did you mean 'unhealthy'?",
        ),
        (
            {"when": {"disk": 1}},
            "has an unknown condition 'disk'; use unhealthy, oldest_age, dead_letters, queue_full",
        ),
    ],
)
def test_wrong_keys_are_refused_with_the_nearest_one(value: Any, message: str) -> None:
    assert refusal(value) == message


def test_the_error_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text("master:\n    port: 1\n    alerts:\n        too: [juggler]\n")
    with pytest.raises(ConfigError) as caught:
        Daemon("app", path).master_config  # noqa: B018

    assert str(caught.value) == (
        f"{path}:3: master.alerts has an unknown key 'too'; did you mean 'to'?"
    )
