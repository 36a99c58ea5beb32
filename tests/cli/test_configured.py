from __future__ import annotations

from pathlib import Path

import pytest

from daemonkit.cli.client import BadAddress
from daemonkit.cli.configured import configured
from daemonkit.exceptions import ConfigError

TOKENS = """
    intake: [http]
    tokens:
        shop: !secret token-of-the-shop
        grafana: {token: !secret token-of-grafana, may: [read]}
        oncall: {token: [!secret token-of-oncall-1, !secret token-of-oncall-2], may: [read, control]}
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(settings: str) -> str:
    Path("cfg.yaml").write_text(f"master: {settings}\n")
    return "cfg.yaml"


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ("{}", "http://localhost:5151"),
        ("{host: 0.0.0.0, port: 1}", "http://localhost:1"),
        ("{host: '::1'}", "http://[::1]:5151"),
        ("{host: 10.0.0.1}", "http://10.0.0.1:5151"),
        ("{host: 'unix:/run/b.sock'}", "unix:/run/b.sock"),
    ],
)
def test_the_address_is_the_one_to_connect_to(settings: str, url: str) -> None:
    assert configured(write(settings), "send").address().text == url


@pytest.mark.parametrize(
    ("admin", "url"),
    [
        ("127.0.0.1:5152", "http://127.0.0.1:5152"),
        ("'[::]:5152'", "http://localhost:5152"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
    ],
)
def test_what_only_the_admin_listener_answers_is_asked_there(admin: str, url: str) -> None:
    file = write(f"{{admin: {admin}}}")
    found = {right: configured(file, right).address().text for right in ("read", "control")}

    assert found == {"read": url, "control": url}
    for right in ("send", None):
        assert configured(file, right).address().text == "http://localhost:5151"


def test_the_token_is_the_first_one_with_the_right() -> None:
    file = write(TOKENS)

    assert [configured(file, right).token for right in ("send", "read", "control", None)] == [
        "token-of-the-shop",
        "token-of-grafana",
        "token-of-oncall-1",
        None,
    ]


@pytest.mark.parametrize(
    ("settings", "setting"), [("{port: 0}", "master.port"), ("{admin: 'a:0'}", "master.admin")]
)
def test_a_port_that_the_daemon_picks_is_an_error(settings: str, setting: str) -> None:
    with pytest.raises(BadAddress) as caught:
        configured(write(settings), "read").address()

    assert str(caught.value) == (
        f"cfg.yaml: the daemon picks a port for {setting}; give the URL instead"
    )


def test_a_wrong_configuration_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"^cfg.yaml:1: master.port must be an int"):
        configured(write("{port: x}"), "read")
