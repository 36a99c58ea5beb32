from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit.cli.group import group

MODULE = """\
from daemonkit import Daemon
app = Daemon("billing")

@app.slave(every=60)
def sweep(): ...

@app.slave(after="sweep", bound=True)
def poller(): ...

@app.post("/hello")
def hello(): return "hello"
"""
CONFIG = """\
url: http://x
password: oops
master:
    port: 5152
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The import of one test must not be that of another, and the path is put back.
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("checked", "broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("checked.py").write_text(MODULE)
    Path("cfg.yaml").write_text(CONFIG)


def check(*arguments: str) -> Any:
    return CliRunner().invoke(group, ["check", *arguments], catch_exceptions=False)


def test_it_shows_the_configuration_slaves_and_routes() -> None:
    result = check("checked:app", "--config", "cfg.yaml", "--log-level", "info", "--set", "a.b=1")

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "billing: 1 warning",
        "Warning: the option 'password' looks like a secret, and /status shows it: make it a "
        "!secret, or name it in master.hidden_opts",
        "",
    ]
    options = {line.split()[0]: line.split()[1:] for line in lines if line[:1].islower()}
    assert options["url"] == ["cfg.yaml:1", "http://x"]
    assert options["a.b"] == ["--set", "1"]
    assert options["master.port"] == ["cfg.yaml:4", "5152"]
    assert options["master.log_level"] == ["--log-level", "INFO"]
    assert options["master.host"] == ["default", "::"]
    start = lines.index("SLAVE   KIND      RUNS        RESTART     STARTS AFTER")
    assert lines[start + 1 : start + 4] == [
        "sweep   function  every 60 s  on-failure",
        "poller  function  once        on-failure  sweep (bound)",
        "",
    ]
    assert ["/hello", "POST", "hello"] in [line.split() for line in lines]


def test_json_has_all_of_it() -> None:
    result = check("checked:app", "-c", "cfg.yaml", "--json")
    found = json.loads(result.stdout)

    assert (result.exit_code, found["result"], found["exit_status"]) == (0, True, 0)
    assert found["configuration"][0] == {"key": "url", "value": "http://x", "origin": "cfg.yaml:1"}
    assert [slave["name"] for slave in found["slaves"]] == ["sweep", "poller"]
    assert {"rule": "/hello", "methods": ["POST"], "endpoint": "hello", "right": None} in found[
        "routes"
    ]
    assert len(found["warnings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "error"),
    [
        (["checked:ap"], 2, "checked has no attribute 'ap'; did you mean app?"),
        (["checked", "--port", "x"], 2, "--port: master.port must be an int 0..65535, not 'x' (str)"),
        (["checked", "--set", "master.queue=/no/x.db"], 3,
         "cannot open the event queue /no/x.db: there is no folder /no"),
    ],
)  # fmt: skip
def test_an_error_has_the_exit_status_of_run(arguments: list[str], status: int, error: str) -> None:
    text, as_json = check(*arguments), check(*arguments, "--json")

    assert (text.exit_code, text.stdout, text.stderr) == (status, "", f"daemonkit: {error}\n")
    assert (as_json.exit_code, as_json.stderr) == (status, text.stderr)
    assert json.loads(as_json.stdout) == {"result": False, "error": error, "exit_status": status}


def test_an_error_in_the_module_has_its_traceback() -> None:
    Path("broken.py").write_text("1 / 0\n")
    result = check("broken")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "ZeroDivisionError: division by zero\n" in result.stderr
    assert result.stderr.endswith(
        "daemonkit: the module 'broken' could not be imported: see above\n"
    )


def test_secrets_are_not_shown() -> None:
    Path("cfg.yaml").write_text("token: !secret hush-hush-hush\nurl: http://hush-hush-hush@x\n")

    for options in ([], ["--json"]):
        result = check("checked", "-c", "cfg.yaml", *options)
        assert "hush-hush-hush" not in result.output
        assert "*** HIDDEN ***" in result.stdout
        assert "cfg.yaml:1, secret" in result.stdout
