from __future__ import annotations

from pathlib import Path

import pytest

from daemonkit.config.files import Files
from daemonkit.config.places import Place
from daemonkit.config.yamlfile import parse_file

TEXT = """\
url: http://x
base: &base
    retries: 3
    wait: 1
other:
    <<: *base
    wait: !env WAIT
    names: [{a: 1}]
token: !secret env:TOKEN
5: !secret hush-hush
port: !env [PORT, 1]
"""


def test_each_key_has_its_line_and_what_is_read_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAIT", "2")
    monkeypatch.setenv("TOKEN", "token-token-token")
    monkeypatch.delenv("PORT", raising=False)
    (tmp_path / "cfg.yaml").write_text(TEXT)
    document = parse_file("cfg.yaml", "master", Files(), tmp_path)

    assert document.places == {
        ("url",): Place(1, ""),
        ("base",): Place(2, ""),
        ("base", "retries"): Place(3, ""),
        ("base", "wait"): Place(4, ""),
        ("other",): Place(5, ""),
        # A merged key stands where it was written.
        ("other", "retries"): Place(3, ""),
        ("other", "wait"): Place(7, "environment WAIT"),
        ("other", "names"): Place(8, ""),
        ("token",): Place(9, "secret env:TOKEN"),
        ("5",): Place(10, "secret"),
        ("port",): Place(11, "default of !env PORT"),
    }
