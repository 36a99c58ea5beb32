from __future__ import annotations

from pathlib import Path

import pytest

from daemonkit.cli.client import BadAddress
from daemonkit.cli.target import Target

CONFIG = (
    "master:\n    port: 1\n    intake: [http]\n    tokens: {shop: !secret from-the-configuration}\n"
)


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "cfg.yaml"
    path.write_text(CONFIG)
    return str(path)


def chosen(target: Target) -> tuple[str, str | None]:
    """The address and the token that a target leads to."""
    client = target.client("send", 1.0)
    return client.address.text, client._fields.get("Authorization")


def test_the_argument_wins_over_the_configuration_and_that_over_the_environment(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chosen(Target()) == ("http://localhost:5151", None)
    monkeypatch.setenv("DAEMONKIT_URL", "http://environment:1")
    assert chosen(Target())[0] == "http://environment:1"
    assert chosen(Target(config=config))[0] == "http://localhost:1"
    assert chosen(Target("http://argument:1", config))[0] == "http://argument:1"


def test_a_token_file_wins_over_the_configuration_and_that_over_the_environment(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-the-file\n")
    monkeypatch.setenv("DAEMONKIT_TOKEN", "from-the-environment")

    assert chosen(Target())[1] == "Bearer from-the-environment"
    assert chosen(Target(config=config))[1] == "Bearer from-the-configuration"
    assert chosen(Target(config=config, token_file=str(file)))[1] == "Bearer from-the-file"


def test_with_address_and_token_given_the_configuration_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")

    assert chosen(Target("http://a", "missing.yaml", str(tmp_path / "token"))) == (
        "http://a",
        "Bearer t",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read the token in token: No such file or directory"),
        (b"\xff", "cannot read the token in token: it is not valid UTF-8"),
        (b"\n", "the token in token is empty"),
        (b"hush hush\n", "the token in token must be printable ASCII characters without spaces"),
        (b"a\nb", "the token in token must be printable ASCII characters without spaces"),
    ],
)
def test_what_is_no_token_is_an_error_that_does_not_show_it(
    content: bytes | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("token").write_bytes(content)
    with pytest.raises(BadAddress) as caught:
        Target(token_file="token").client(None, 1.0)

    assert str(caught.value) == reason


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAEMONKIT_URL", "billing")
    with pytest.raises(BadAddress, match=r"^\$DAEMONKIT_URL must be http://"):
        Target().client(None, 1.0)
    monkeypatch.setenv("DAEMONKIT_TOKEN", "a b")
    with pytest.raises(BadAddress, match=r"^\$DAEMONKIT_TOKEN must be printable ASCII"):
        Target("http://a").client(None, 1.0)
