"""The programs in docs/examples, run as users run them."""

from __future__ import annotations

import hmac
import json
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
import requests

from ..monitoring.alerts.juggler_server import FakeJuggler, juggler_server
from .process import Process
from .tools import missing

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = REPOSITORY / "docs" / "examples"
OCTOKIT = REPOSITORY / ".venv/npm/node_modules/@octokit/webhooks-examples"
SECRET = "It's a secret to everybody"

Spawn = Callable[..., Process]


def run(spawn: Spawn, example: str, *options: str, **more: Any) -> Process:
    file = str(EXAMPLES / example)
    return spawn("-m", "daemonkit", "run", file, "--port", "0", *options, **more).wait_ready()


def test_hello_greets_counts_and_stops(spawn):
    hello = run(spawn, "hello.py")
    hello.send_event({"hello": "world"})
    hello.send_event("there")
    hello.wait_until(lambda: hello.status()["greeted"] == 2)
    assert re.search(r"INFO +Hello, \{'hello': 'world'\} \[event 1\]\n", hello.out)
    assert hello.get("/hello").json() == {"hello": "world"}
    assert hello.stop() == 0
    assert hello.err == ""


# webhooks.py


@pytest.fixture
def webhooks(spawn) -> Process:
    return run(spawn, "webhooks.py", *config("webhooks"), env={"WEBHOOK_SECRET": SECRET})


@pytest.fixture(scope="module")
def refusing_webhooks(tmp_path_factory) -> Iterator[Process]:
    """One for all tests of refusals, which leave nothing behind in it."""
    command = "-m", "daemonkit", "run", str(EXAMPLES / "webhooks.py"), "--port", "0"
    folder, env = tmp_path_factory.mktemp("webhooks"), {"WEBHOOK_SECRET": SECRET}
    process = Process([*command, *config("webhooks")], folder, env)
    try:
        yield process.wait_ready()
    finally:
        process.close()


@pytest.fixture
def unchecked_webhooks(spawn) -> Process:
    return run(spawn, "webhooks.py")


def config(example: str) -> tuple[str, str]:
    return "--config", str(EXAMPLES / f"{example}.yaml")


def headers_for(body: bytes, kind: str = "ping") -> dict[str, str]:
    """The headers GitHub sends with a delivery."""
    return {
        "X-GitHub-Event": kind,
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=" + hmac.digest(SECRET.encode(), body, "sha256").hex(),
        "Content-Type": "application/json",
    }


def counted(process: Process) -> dict[str, Any]:
    status = process.status()
    return {name: status[name] for name in ("deliveries", "kinds", "repositories")}


def answer(response: requests.Response) -> tuple[int, Any]:
    return response.status_code, response.json()


def refusal(code: int, message: str) -> tuple[int, Any]:
    return code, {"message": message, "result": False}


TAKEN = (200, {"message": "Delivery received", "result": True})
NOTHING = {"deliveries": 0, "kinds": {}, "repositories": {}}


def test_webhooks_counts_deliveries_by_kind_and_by_repository(webhooks):
    assert counted(webhooks) == NOTHING
    for kind, payload in (
        ("ping", {"zen": "Keep it logically awesome.", "hook_id": 1}),
        ("push", {"repository": {"full_name": "octocat/hello"}}),
        ("push", {"repository": {"full_name": "octocat/bye"}}),
        ("issues", {"repository": {"full_name": "octocat/hello"}}),
        ("team", {"repository": None}),
    ):
        body = json.dumps(payload).encode()
        assert answer(webhooks.post("/github", data=body, headers=headers_for(body, kind))) == TAKEN
    webhooks.wait_until(lambda: webhooks.status()["deliveries"] == 5)
    assert counted(webhooks) == {
        "deliveries": 5,
        "kinds": {"ping": 1, "push": 2, "issues": 1, "team": 1},
        "repositories": {"octocat/hello": 2, "octocat/bye": 1},
    }
    assert webhooks.stop() == 0


def test_webhooks_accepts_form_encoded_deliveries(webhooks):
    body = b"payload=" + quote_plus('{"repository": {"full_name": "a/b+c ü"}}').encode()
    headers = headers_for(body) | {"Content-Type": "application/x-www-form-urlencoded"}
    assert answer(webhooks.post("/github", data=body, headers=headers)) == TAKEN
    webhooks.wait_until(lambda: webhooks.status()["deliveries"] == 1)
    assert webhooks.status()["repositories"] == {"a/b+c ü": 1}


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("X-Hub-Signature-256", None, (401, "The header X-Hub-Signature-256 is missing")),
        ("X-Hub-Signature-256", "sha256=" + 64 * "0", (403, "The signature is wrong")),
        ("X-Hub-Signature-256", "", (403, "The signature is wrong")),
        ("X-Hub-Signature-256", "ü".encode(), (403, "The signature is wrong")),
        ("X-GitHub-Event", None, (400, "The header X-GitHub-Event is missing")),
        ("X-GitHub-Event", "", (400, "The header X-GitHub-Event is missing")),
    ],
)
def test_webhooks_refuses_a_delivery_without_the_right_headers(
    refusing_webhooks, header, value, expected
):
    body = b"{}"
    headers = headers_for(body) | {header: value}
    response = refusing_webhooks.post("/github", data=body, headers=headers)
    assert answer(response) == refusal(*expected)
    assert counted(refusing_webhooks) == NOTHING


def test_webhooks_refuses_a_body_that_was_changed_in_transit(refusing_webhooks):
    headers = headers_for(b'{"a": 1}')
    response = refusing_webhooks.post("/github", data=b'{"a": 2}', headers=headers)
    assert answer(response) == refusal(403, "The signature is wrong")
    assert counted(refusing_webhooks) == NOTHING


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Invalid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"payload=", "Invalid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"a": nope}', "Invalid JSON: Expecting value: line 1 column 7 (char 6)"),
        (
            b'"\xff"',
            "Invalid JSON: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
        ),
        (b"[]", "A delivery must be a JSON object"),
        # Python's parser takes these; the library doesn't.
        (
            b'{"a":' * 300 + b"1" + b"}" * 300,
            "Invalid JSON: nested deeper than 200 levels",
        ),
        (b'{"a":' * 99999, "Invalid JSON: nested too deeply"),
    ],
    ids=["empty", "empty form", "not JSON", "not UTF-8", "not an object", "deep", "too deep"],
)
def test_webhooks_refuses_a_bad_body(refusing_webhooks, body, message):
    response = refusing_webhooks.post("/github", data=body, headers=headers_for(body))
    assert answer(response) == refusal(400, message)
    assert counted(refusing_webhooks) == NOTHING


def test_webhooks_ignores_events_that_bypass_the_signature(webhooks):
    forged = {"kind": "push", "delivery": None, "payload": {}}
    webhooks.send_event(forged)
    webhooks.send_datagram(json.dumps(forged).encode())
    webhooks.wait_until(lambda: webhooks.status()["events"]["handled"] == 2)
    assert counted(webhooks) == NOTHING
    webhooks.wait_for(
        r"WARNING +Ignored an event from 127\.0\.0\.1:\d+ \(udp\): not a delivery \[event \d+\]\n"
    )


def test_webhooks_accepts_the_largest_delivery(webhooks):
    body = json.dumps({"text": "x" * 24_000_000}).encode()
    assert answer(webhooks.post("/github", data=body, headers=headers_for(body))) == TAKEN


def test_webhooks_without_a_secret_accepts_unsigned_deliveries_and_says_so(unchecked_webhooks):
    process = unchecked_webhooks
    process.wait_for(r"WARNING +webhook_secret is not set: anyone's deliveries will be counted\n")
    response = process.post("/github", json={}, headers={"X-GitHub-Event": "ping"})
    assert answer(response) == TAKEN
    process.wait_until(
        lambda: counted(process) == {**NOTHING, "deliveries": 1, "kinds": {"ping": 1}}
    )


def test_webhooks_does_not_start_without_the_secret_that_its_configuration_names(
    spawn, monkeypatch
):
    monkeypatch.delenv("WEBHOOK_SECRET", raising=False)
    file = str(EXAMPLES / "webhooks.yaml")
    process = spawn("-m", "daemonkit", "run", str(EXAMPLES / "webhooks.py"), "--config", file)
    assert process.wait() == 2
    assert process.err == (
        f"daemonkit: {file}:10: the environment variable WEBHOOK_SECRET is not set\n"
    )


@pytest.mark.parametrize("secret", ["12345", "''"])
def test_webhooks_does_not_start_with_an_unusable_secret(spawn, secret):
    options = "--port", "0", "--set", f"webhook_secret={secret}"
    process = spawn("-m", "daemonkit", "run", str(EXAMPLES / "webhooks.py"), *options)
    assert process.wait() == 3
    assert process.err == (
        "webhooks: the start hook check_secret failed: ValueError: "
        "webhook_secret must be a string, not empty; put a number in quotes\n"
    )


def octokit_deliveries() -> list[tuple[str, Any]]:
    """Kind and body of each delivery in Octokit's collection."""
    folder = Path(os.environ.get("OCTOKIT_EXAMPLES", OCTOKIT))
    files = sorted(folder.glob("*/index.json"))
    if not files:
        missing(f"delivery in {folder}")
    return [
        (event["name"], body)
        for file in files
        for event in json.loads(file.read_text("utf-8"))
        for body in event["examples"]
    ]


def test_webhooks_counts_each_delivery_of_octokit_s_collection(webhooks):
    deliveries = octokit_deliveries()
    assert len(deliveries) == 726
    with requests.Session() as session:
        for kind, payload in deliveries:
            body = json.dumps(payload, ensure_ascii=False).encode()
            response = session.post(
                f"{webhooks.url}/github", data=body, headers=headers_for(body, kind), timeout=60
            )
            assert answer(response) == TAKEN
    webhooks.wait_until(lambda: webhooks.status()["deliveries"] == 726, "all deliveries counted")
    repositories = (payload["repository"] for _, payload in deliveries if "repository" in payload)
    assert counted(webhooks) == {
        "deliveries": 726,
        "kinds": Counter(kind for kind, _ in deliveries),
        "repositories": Counter(repository["full_name"] for repository in repositories),
    }
    events = webhooks.status()["events"]
    expected = {"received": 726, "refused": 0, "handled": 726, "failed": 0}
    assert {name: events[name] for name in expected} == expected


# hostwatch.py


class Watched(BaseHTTPRequestHandler):
    """An address whose `code` and `delay` (seconds) a test changes."""

    code: int
    delay: float

    def do_GET(self) -> None:
        time.sleep(self.delay)
        reply(self, self.code, b"")

    def log_message(self, *args: Any) -> None:
        pass


def reply(handler: BaseHTTPRequestHandler, code: int, body: bytes) -> None:
    handler.send_response(code)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def serving(base: type[BaseHTTPRequestHandler], **attributes: Any) -> Iterator[tuple[str, Any]]:
    """The address of a server, and its handler class."""
    handler: Any = type(base.__name__, (base,), attributes)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", handler
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def juggler() -> Iterator[tuple[str, Any]]:
    with juggler_server(FakeJuggler()) as served:
        yield served.url, served


@pytest.fixture
def watched() -> Iterator[tuple[str, Any]]:
    with serving(Watched, code=200, delay=0) as served:
        yield served


@pytest.fixture
def refusing_url() -> Iterator[str]:
    """An address at which nothing listens or will listen."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield url_of(bound)


@pytest.fixture
def silent_url() -> Iterator[str]:
    """An address that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield url_of(listening)


def url_of(sock: socket.socket) -> str:
    return f"http://127.0.0.1:{sock.getsockname()[1]}/"


@pytest.fixture
def hostwatch(spawn, juggler, tmp_path) -> Callable[..., Process]:
    """Start it on some checks, which it repeats every 20 ms."""

    def start(**checks: Any) -> Process:
        file = str(write_config(tmp_path, juggler, **checks))
        return run(spawn, "hostwatch.py", "--config", file)

    return start


def write_config(folder: Path, juggler: tuple[str, Any], **checks: Any) -> Path:
    every = dict.fromkeys(("disk", "load", "http"), 0.02)
    tree = {"master": {"juggler_url": juggler[0]}, "host": "web-1", "every": every, **checks}
    file = folder / "hostwatch.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(tree))
    return file


def alerts(juggler: tuple[str, Any], kind: str) -> list[tuple[str, str, str]]:
    """Service, status and description of the alerts so far of one kind of check, in order."""
    events = [event for request in list(juggler[1].requests) for event in request["events"]]
    return [
        (event["service"], event["status"], without_values(event["description"]))
        for event in events
        if event["service"].startswith(f"{kind}_")
    ]


def without_values(description: str) -> str:
    return re.sub(r"\d+(\.\d+)?(?= %| GB| s to answer| per CPU)", "N", description)


def wait_for_alerts(process: Process, juggler: tuple[str, Any], kind: str, count: int) -> None:
    """Wait for this many alerts, and for a check after them, which must not repeat one."""

    def ticks() -> int:
        return next(s["ticks"] for s in process.status()["slaves"] if s["name"] == kind)

    process.wait_until(lambda: len(alerts(juggler, kind)) >= count, f"{count} alerts of {kind}")
    before = ticks()
    # The first may already have been in progress.
    process.wait_until(lambda: ticks() >= before + 2, f"ticks of {kind}")


@pytest.mark.slow
def test_hostwatch_alerts_once_for_each_change_of_an_address(hostwatch, juggler, watched):
    url, site = watched
    process = hostwatch(http={"site": {"url": url, "warn": 2, "crit": 30}})
    expected = []
    for code, delay, status, description in (
        (200, 0, "OK", f"{url} answers 200"),
        (200, 2.05, "WARN", f"{url} is slow: N s to answer"),
        (503, 0, "CRIT", f"{url} answers 503 Service Unavailable"),
        (200, 0, "OK", f"{url} answers 200"),
    ):
        site.code, site.delay = code, delay
        expected.append(("http_site", status, description))
        wait_for_alerts(process, juggler, "http", len(expected))
        assert alerts(juggler, "http") == expected
    shown = {"http_site": {"status": "OK", "description": f"{url} answers 200"}}
    assert process.status()["checks"] == shown
    assert process.stop() == 0
    alert = {
        "host": "web-1",
        "service": "http_site",
        "status": "CRIT",
        "description": f"{url} answers 503 Service Unavailable",
        "instance": "",
        "tags": [],
    }
    assert juggler[1].requests[2] == {"source": "hostwatch", "events": [alert]}


def test_hostwatch_alerts_when_a_disk_goes_and_comes_back(hostwatch, juggler, tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    process = hostwatch(disk={"data": {"path": str(path), "warn": 101, "crit": 102}})
    ok = ("disk_data", "OK", f"The disk at {path} is N % full, N GB left")
    gone = ("disk_data", "CRIT", f"The disk at {path} can't be checked: No such file or directory")
    process.wait_until(lambda: alerts(juggler, "disk") == [ok])
    path.rmdir()
    process.wait_until(lambda: alerts(juggler, "disk") == [ok, gone])
    path.mkdir()
    process.wait_until(lambda: alerts(juggler, "disk") == [ok, gone, ok])


def test_hostwatch_continues_with_the_other_checks_when_some_fail(
    hostwatch, juggler, watched, refusing_url, silent_url
):
    process = hostwatch(
        disk={
            "gone": {"path": "/nowhere", "warn": 80, "crit": 95},
            "typo": {"path": "/", "warn": "80%", "crit": "95%"},
            "root": {"path": "/", "warn": 0, "crit": 101},
        },
        load={"average": {"warn": 10**6, "crit": 10**7}},
        http={
            "down": {"url": refusing_url, "warn": 5, "crit": 10},
            "silent": {"url": silent_url, "warn": 0.1, "crit": 0.2},
            "site": {"url": watched[0], "warn": 5, "crit": 10},
        },
    )
    wrong = "TypeError(\"'>=' not supported between instances of 'float' and 'str'\")"
    for kind, checks in {
        "disk": [
            ("CRIT", "gone", "The disk at /nowhere can't be checked: No such file or directory"),
            ("CRIT", "typo", f"disk_typo can't be checked: {wrong}"),
            ("WARN", "root", "The disk at / is N % full, N GB left"),
        ],
        "load": [("OK", "average", "The load is N per CPU")],
        "http": [
            ("CRIT", "down", f"{refusing_url} does not answer: Connection refused"),
            ("CRIT", "silent", f"{silent_url} does not answer within 0.2 s"),
            ("OK", "site", f"{watched[0]} answers 200"),
        ],
    }.items():
        expected = [(f"{kind}_{name}", status, text) for status, name, text in checks]
        wait_for_alerts(process, juggler, kind, len(expected))
        assert alerts(juggler, kind) == expected
    assert process.get("/ping").text == "OK\n"
    assert process.stop() == 0


def test_hostwatch_applies_new_thresholds_on_sighup(hostwatch, juggler, tmp_path):
    process = hostwatch(load={"average": {"warn": 10**6, "crit": 10**7}})
    ok, crit = (("load_average", status, "The load is N per CPU") for status in ("OK", "CRIT"))
    process.wait_until(lambda: alerts(juggler, "load") == [ok])
    write_config(tmp_path, juggler, load={"average": {"warn": 0, "crit": 0}})
    process.send_signal(signal.SIGHUP)
    process.wait_until(lambda: alerts(juggler, "load") == [ok, crit])


def test_hostwatch_does_not_start_with_an_unknown_option(spawn, juggler, tmp_path):
    file = write_config(tmp_path, juggler, load={"average": {"threshold": 1}})
    example = str(EXAMPLES / "hostwatch.py")
    process = spawn("-m", "daemonkit", "run", example, "--port", "0", "--config", str(file))
    assert process.wait() == 3
    assert process.err == (
        "hostwatch: the start hook start_slaves failed: TypeError: "
        "Load.__init__() got an unexpected keyword argument 'threshold'\n"
    )


def test_hostwatch_runs_with_its_example_configuration(spawn, juggler, watched):
    addresses = {"master.juggler_url": juggler[0], "http.self.url": watched[0]}
    options = [part for key, url in addresses.items() for part in ("--set", f"{key}={url}")]
    process = run(spawn, "hostwatch.py", *config("hostwatch"), *options)
    process.wait_until(lambda: len(juggler[1].requests) == 3)
    assert process.status()["checks"].keys() == {"disk_root", "load_average", "http_self"}
    hosts = {event["host"] for request in juggler[1].requests for event in request["events"]}
    assert hosts == {socket.gethostname()}
    assert process.stop() == 0
