"""Every route, for everyone, on every listener."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import flask
import pytest

from daemonkit import Daemon, Secret
from daemonkit.events.udp import NO_DATAGRAMS
from daemonkit.testing import running
from daemonkit.web.routes import ROUTES

Address = tuple[str, int] | str
"""Of a TCP socket, or the path of a Unix socket."""
NAMES = ("send", "read", "control")
SECRETS = {name: f"{name}-{name}-{name}-{name}" for name in (*NAMES, "wrong")}
TOKENS = {name: {"token": Secret(SECRETS[name]), "may": [name]} for name in NAMES}
WHO = ("nobody", *NAMES, "wrong")

BODIES = {
    "events": (b'{"a": 1}', 200),
    "control/show": (b'{"id": 1}', 200),
    "control/level": (b'{"level": "DEFAULT"}', 200),
    "control/stacks": (b"", 200),
    "control/pause": (b'{"slave": "none"}', 404),
    "control/resume": (b'{"events": true}', 200),
    "control/restart": (b'{"slave": "none"}', 404),
    "control/run-now": (b'{"slave": "none"}', 404),
    "control/retry": (b'{"ids": [7000]}', 404),
    "control/drop": (b'{"ids": [7000]}', 404),
    # The daemon is needed on.
    "control/reload": (b"[]", 400),
    # It is one process.
    "control/replace": (b"", 409),
    "control/stop": (b"[]", 400),
}
"""What is sent, and the answer to those who may."""
ALLOWED = {path: BODIES.get(path, (b"", 200))[1] for path in ROUTES}
RIGHTS = {
    None: lambda code: (code,) * 5,
    "send": lambda code: (401, code, 403, 403, 401),
    "read": lambda code: (401, 403, code, 403, 401),
    "control": lambda code: (401, 403, 403, code, 401),
}
"""The answer to each of WHO, if every right is guarded."""
TABLE = {path: RIGHTS[route.right](ALLOWED[path]) for path, route in ROUTES.items()}
UNGUARDED = {path: (code,) * 5 for path, code in ALLOWED.items()}
SEND_GUARDED = {**UNGUARDED, "events": (401, 200, 401, 401, 401)}
"""The same on this machine, if only `send` is."""
ADMIN_ONLY = {path for path, route in ROUTES.items() if route.listener == "admin"}
EVERYWHERE = {"ping", "ready"}
PAGE = {"", "page/<name>"}
NOT_JSON = {*PAGE, *EVERYWHERE, "metrics"}
HTML = {"Accept": "text/html,*/*;q=0.8"}


class Answer(NamedTuple):
    code: int
    headers: Any
    body: bytes

    @property
    def message(self) -> Any:
        return json.loads(self.body)["message"]


class Connection(http.client.HTTPConnection):
    """To a listener, kept for more requests; source: the client's address."""

    def __init__(self, address: Address, source: str = "") -> None:
        super().__init__("localhost:5151")
        self._address = address
        self._source = (source, 0) if source else None

    def connect(self) -> None:
        if isinstance(self._address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(10)
            self.sock.connect(self._address)
        else:
            self.sock = socket.create_connection(self._address, 10, self._source)

    def ask(
        self, method: str, path: str, body: bytes | None = None, who: str = "nobody", **fields: str
    ) -> Answer:
        """Ask the listener; who: whose token to send."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        if who in SECRETS:
            headers["Authorization"] = f"Bearer {SECRETS[who]}"
        self.request(method, path, body, headers)
        found = self.getresponse()
        return Answer(found.status, found.headers, found.read())


def ask(
    address: Address,
    method: str,
    path: str,
    body: bytes | None = None,
    who: str = "nobody",
    source: str = "",
    **fields: str,
) -> Answer:
    """Ask a listener over a connection of its own."""
    with closing(Connection(address, source)) as connection:
        return connection.ask(method, path, body, who, **fields)


def ask_route(address: Address, path: str, **options: Any) -> Answer:
    body = BODIES.get(path, (None, 200))[0]
    return ask(address, ROUTES[path].method, _path(path), body, **{**HTML, **options})


def _path(path: str) -> str:
    return f"/{path}".replace("<name>", "page.js")


class Listeners(NamedTuple):
    app: Daemon
    public: Address
    admin: Address | None

    @property
    def parts(self) -> Any:
        return self.app._assembly.parts

    def address_of(self, path: str) -> Address:
        """Where a route is."""
        return self.admin if self.admin is not None and path in ADMIN_ONLY else self.public

    def wait_until_handled(self, count: int) -> None:
        until = time.monotonic() + 10
        while self.app._operations.status.counters()["events"]["handled"] < count:
            assert time.monotonic() < until
            time.sleep(0.005)


def address_of(server: Any) -> Address:
    name = server._socket.getsockname()
    return name if isinstance(name, str) else (name[0], name[1])


@contextmanager
def listening(app: Daemon, master: dict[str, Any]) -> Iterator[Listeners]:
    """A running daemon's listeners; it has a dead letter, unless the handler is the test's."""
    has_letter = app._registry.handler is None
    if has_letter:
        app.add_event_handler(lambda event: {}["no"] if event == "fail" else None)
        app.put_event("fail")
    app.route("/mine", endpoint="mine")(lambda: "mine")
    with running(app, {"master": master}) as client:
        parts = app._assembly.parts
        assert parts is not None
        listeners = Listeners(
            app, address_of(parts.server), parts.admin and address_of(parts.admin)
        )
        client.wait_until(lambda: app._operations.status.counters()["events"]["dead"] == has_letter)
        yield listeners


LAYOUTS = {
    "one port": {},
    "one Unix socket": {"host": "unix:{folder}/http.sock"},
    "admin port": {"admin": "127.0.0.1:0"},
    "admin Unix socket": {"admin": "unix:{folder}/admin.sock"},
    "two Unix sockets": {
        "host": "unix:{folder}/http.sock",
        "admin": "unix:{folder}/admin.sock",
    },
}
GUARDS = {
    "all": (TOKENS, TABLE),
    "send": ({"send": TOKENS["send"]}, SEND_GUARDED),
    "none": ({}, UNGUARDED),
}


def settings_of(layout: str, folder: Path, **more: Any) -> dict[str, Any]:
    given = {name: text.format(folder=folder) for name, text in LAYOUTS[layout].items()}
    return {"intake": ["http"], **given, **more}


class Table(NamedTuple):
    """A daemon, and what each of WHO is answered where the routes are."""

    listeners: Listeners
    expected: dict[str, tuple[int, ...]]


@pytest.fixture(
    scope="module", params=[f"{layout}, {guard}" for layout in LAYOUTS for guard in GUARDS]
)
def table(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Table]:
    layout, guard = request.param.split(", ")
    tokens, expected = GUARDS[guard]
    settings = settings_of(layout, tmp_path_factory.mktemp("x"), tokens=tokens)
    with listening(Daemon("app"), settings) as listeners:
        yield Table(listeners, expected)


def test_the_table_has_every_route() -> None:
    """A new route that takes a body needs one, and a right that is listed here."""
    assert {path: route.right for path, route in ROUTES.items() if route.right != "control"} == {
        "": None,
        "page/<name>": None,
        "events": "send",
        "metrics": "read",
        "status": "read",
        "status/config": "read",
        "status/warnings": "read",
        "status/failed": "read",
        "status/history": "read",
        "ping": None,
        "ready": None,
    }
    assert BODIES.keys() == {path for path, route in ROUTES.items() if route.method == "POST"}


@pytest.mark.parametrize("path", TABLE)
def test_each_route_answers_those_who_may(table: Table, path: str) -> None:
    listeners, expected = table
    for address in filter(None, (listeners.public, listeners.admin)):
        is_there = path in EVERYWHERE or address == listeners.address_of(path)
        found = [ask_route(address, path, who=who) for who in WHO]
        codes = tuple(answer.code for answer in found)
        assert codes == (expected[path] if is_there else (404,) * 5)
        for answer in found:
            challenge = answer.headers.get("WWW-Authenticate")
            assert challenge == ("Bearer" if answer.code == 401 else None)
            is_json = answer.code != 200 or path not in NOT_JSON
            assert not is_json or json.loads(answer.body)["result"] is (answer.code == 200)


@pytest.mark.parametrize("path", [path for path in TABLE if path not in EVERYWHERE])
def test_other_methods_need_the_same_right(table: Table, path: str) -> None:
    listeners, expected = table
    method = ROUTES[path].method
    address = listeners.address_of(path)
    allowed = {method, "OPTIONS", *(["HEAD"] if method == "GET" else [])}
    with closing(Connection(address)) as connection:
        for other in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "X"):
            if other == method:
                continue
            for who, code in zip(WHO, expected[path], strict=True):
                answer = connection.ask(other, _path(path), who=who, **HTML)
                usual = 200 if other in allowed else 405
                is_refused = code in (401, 403)
                assert answer.code == (code if is_refused else usual), (other, who)
                assert other != "HEAD" or answer.body == b""
                if answer.code == 405:
                    assert set(answer.headers["Allow"].split(", ")) == allowed
            if listeners.admin is not None:
                elsewhere = listeners.public if address == listeners.admin else listeners.admin
                assert ask(elsewhere, other, _path(path), who="control", **HTML).code == 404


def test_users_routes_are_on_the_public_listener_and_theirs_to_protect(table: Table) -> None:
    listeners, _ = table
    fields = {"Origin": "http://evil.example", "Host": "evil.example"}
    for who in WHO:
        assert ask(listeners.public, "GET", "/mine", who=who, **fields).body == b"mine"
        if listeners.admin is not None:
            assert ask(listeners.admin, "GET", "/mine", who=who).code == 404
    for path in ("/nowhere", "/events/", "/status/", "/STATUS", "/"):
        for address in filter(None, (listeners.public, listeners.admin)):
            assert ask(address, "GET", path).code == 404


# Refusals


def test_a_refusal_says_what_is_missing_and_no_hook_sees_it() -> None:
    app, seen = Daemon("app"), []
    app.before_request(lambda: seen.append(flask.request.path))
    with listening(app, {"intake": ["http"], "tokens": TOKENS}) as listeners:
        messages = [
            ask_route(listeners.public, "status", who=who).message for who in ("nobody", "wrong")
        ]
        messages.append(ask_route(listeners.public, "status", who="send").message)

    assert messages == [
        "This needs a token: Authorization: Bearer TOKEN",
        "This needs a valid token: Authorization: Bearer TOKEN",
        "The token send may not read",
    ]
    assert seen == []


def test_users_error_handlers_may_word_a_refusal() -> None:
    app = Daemon("app")
    app.errorhandler(401)(lambda error: ("who are you?", 401, error.get_headers()))
    with listening(app, {"intake": ["http"], "tokens": TOKENS}) as listeners:
        answer = ask_route(listeners.public, "status")

    assert (answer.code, answer.body) == (401, b"who are you?")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_users_route_of_the_same_path_replaces_what_is_guarded() -> None:
    app = Daemon("app")
    app.get("/status")(lambda: "my status")
    master = {"intake": ["http"], "tokens": TOKENS, "admin": "127.0.0.1:0"}
    with listening(app, master) as listeners:
        assert ask(listeners.public, "GET", "/status").body == b"my status"
        assert listeners.admin is not None
        assert ask(listeners.admin, "GET", "/status", who="read").code == 404
        assert ask_route(listeners.public, "events").code == 401


def test_control_is_not_found_by_a_path_that_is_only_nearly_its_own() -> None:
    with listening(Daemon("app"), {"tokens": TOKENS, "intake": ["http"]}) as listeners:
        for path in ("/control//show", "/control/show/", "/Control/show"):
            assert ask(listeners.public, "POST", path).code == 404


@pytest.mark.parametrize("is_durable", [False, True])
def test_control_show_returns_a_dead_letter_whole_or_says_what_is_wrong(
    is_durable: bool, tmp_path: Path
) -> None:
    queue = str(tmp_path / "events.db") if is_durable else None
    with listening(Daemon("app"), {"queue": queue}) as listeners:
        letter_id = 1
        if queue is not None:
            with closing(sqlite3.connect(queue)) as file:
                ((letter_id,),) = file.execute("SELECT id FROM failed")
        whole = json.dumps({"id": letter_id}).encode()
        shown = ask(listeners.public, "POST", "/control/show", whole).message
        answers = [
            ask(listeners.public, "POST", "/control/show", body)
            for body in (b'{"id": 7}', b"{}", b'{"id": true}', b'{"id": "1"}', b"1", b"")
        ]

    assert shown["event"] == '"fail"'
    assert shown["error"] == "KeyError: 'no'"
    assert shown["traceback"].startswith("Traceback")
    assert [answer.code for answer in answers] == [404, 400, 400, 400, 400, 400]
    assert answers[0].message == "There is no dead letter 7"
    assert answers[1].message == 'The body must be {"id": NUMBER}'


# The same machine


@pytest.mark.parametrize("layout", ["one port", "admin port"])
def test_control_without_a_token_needs_a_direct_connection(layout: str, tmp_path: Path) -> None:
    with listening(Daemon("app"), settings_of(layout, tmp_path)) as listeners:
        address = listeners.address_of("control/show")
        direct = ask_route(address, "control/show").code
        through = [
            ask_route(address, "control/show", **{name: "192.0.2.1"}).code
            for name in ("X_Forwarded_For", "Forwarded", "Via", "X_Real_IP", "X_Forwarded_Proto")
        ]

    assert (direct, through) == (200, [403] * 5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_behind_trusted_proxies_only_the_admin_unix_socket_controls_without_a_token(
    layout: str, tmp_path: Path
) -> None:
    settings = settings_of(layout, tmp_path, trusted_proxies=["10.0.0.7", "unix"])
    with listening(Daemon("app"), settings) as listeners:
        code = ask_route(listeners.address_of("control/show"), "control/show").code

    assert code == (200 if "unix" in settings.get("admin", "") else 403)


ASK_AS_OTHER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect(sys.argv[1])
    body = b'{"id": 1}'
    head = "%s HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
    sock.sendall((head % (sys.argv[2], len(body))).encode() + body)
    print(sock.makefile().readline().split()[1])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to become another user")
@pytest.mark.parametrize("layout", ["one Unix socket", "admin Unix socket"])
def test_another_user_of_a_unix_socket_may_read_but_not_control(layout: str) -> None:
    with (
        TemporaryDirectory() as folder,
        listening(Daemon("app"), settings_of(layout, Path(folder))) as listeners,
    ):
        address = listeners.address_of("status")
        assert isinstance(address, str)
        # As for a member of its group.
        os.chmod(folder, 0o711)
        os.chmod(address, 0o666)
        codes = [
            subprocess.run(
                [sys.executable, "-c", ASK_AS_OTHER, address, line],
                capture_output=True,
                check=True,
                text=True,
                timeout=30,
            ).stdout.strip()
            for line in ("GET /status", "POST /control/show")
        ]

    assert codes == ["200", "403"]


# Hosts and other sites


def test_a_foreign_name_does_not_lead_to_control() -> None:
    """DNS rebinding: a name of the attacker's that resolves to 127.0.0.1."""
    with listening(Daemon("app"), {}) as listeners:
        for host, code in (
            *(("evil.example", 403), ("evil.example:5151", 403), ("localhost.evil", 403)),
            *(("localhost:5151", 200), ("127.0.0.1:5151", 200), (socket.gethostname(), 200)),
        ):
            fields = {"Host": host, "Sec_Fetch_Site": "same-origin", "Origin": f"http://{host}"}
            assert ask_route(listeners.public, "control/show", **fields).code == code, host
            assert ask_route(listeners.public, "status", **fields).code == 200


def test_only_allowed_hosts_are_answered_except_on_probes() -> None:
    app = Daemon("app")
    with listening(app, {"allowed_hosts": ["billing.example", ".internal"]}) as listeners:
        for host, is_allowed in (
            *(("billing.example", True), ("BILLING.EXAMPLE.:80", True), ("a.internal", True)),
            *(("localhost", True), ("127.0.0.1:1", True), ("[::1]", True), ("evil.example", False)),
            *((socket.gethostname() + ".evil", False), ("192.0.2.1", False), ("", False)),
        ):
            for path in TABLE:
                answer = ask_route(listeners.public, path, Host=host)
                expected = ALLOWED[path] if is_allowed or path in EVERYWHERE else 403
                assert answer.code == expected, (host, path)
            assert ask(listeners.public, "GET", "/mine", Host=host).code == (
                200 if is_allowed else 403
            )
        refused = ask(listeners.public, "GET", "/mine", Host="evil.example")

    assert refused.message == "The Host evil.example is not in allowed_hosts"
    assert refused.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"Sec_Fetch_Site": "cross-site"}, True),
        ({"Sec_Fetch_Site": "same-site"}, True),
        ({"Sec_Fetch_Site": "same-origin"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Origin": "null"}, True),
        ({"Origin": "http://["}, True),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "http://localhost:5151"}, False),
        ({"Origin": "http://localhost", "Host": "localhost:80"}, False),
    ],
)
def test_pages_of_other_sites_neither_send_nor_control(
    fields: dict[str, str], is_refused: bool
) -> None:
    with listening(Daemon("app"), {}) as listeners:
        for path in TABLE:
            expected = 403 if is_refused and ROUTES[path].method == "POST" else ALLOWED[path]
            assert ask_route(listeners.public, path, **fields).code == expected
        assert ask(listeners.public, "GET", "/mine", **fields).code == 200


# Networks and proxies


def test_clients_outside_allow_from_get_403_except_on_probes() -> None:
    with listening(Daemon("app"), {"allow_from": ["127.0.0.2"]}) as listeners:
        for source, is_allowed in (("127.0.0.2", True), ("127.0.0.3", False)):
            for path in TABLE:
                answer = ask_route(listeners.public, path, source=source)
                expected = ALLOWED[path] if is_allowed or path in EVERYWHERE else 403
                assert answer.code == expected, (source, path)
            mine = ask(listeners.public, "GET", "/mine", source=source)
            assert mine.code == (200 if is_allowed else 403)
        refused = ask_route(listeners.public, "events", source="127.0.0.3")

    assert refused.message.startswith("127.0.0.3:")
    assert refused.message.endswith(" is not in a network that may connect (allow_from)")


def test_allow_from_holds_on_the_admin_port_but_not_on_unix_sockets(tmp_path: Path) -> None:
    for layout, code in (("admin port", 403), ("admin Unix socket", 200)):
        settings = settings_of(layout, tmp_path, allow_from=["192.0.2.0/24"])
        with listening(Daemon("app"), settings) as listeners:
            assert ask_route(listeners.address_of("status"), "status").code == code
            assert ask_route(listeners.public, "events").code == 403


def test_datagrams_from_outside_allow_from_are_dropped_and_counted() -> None:
    app, seen = Daemon("app"), []
    app.add_event_handler(lambda event, meta: seen.append((event, meta.peer.split(":")[0])))
    with listening(app, {"allow_from": ["127.0.0.2"]}) as listeners:

        def send(data: bytes, source: str) -> None:
            with socket.socket(type=socket.SOCK_DGRAM) as sock:
                sock.bind((source, 0))
                sock.sendto(data, listeners.public)

        for data, source in (
            *((b"1", "127.0.0.3"), (b"2", "127.0.0.2"), (b"nonsense", "127.0.0.3")),
            *((b"3", "127.0.0.4"), (b"nonsense", "127.0.0.2"), (b"4", "127.0.0.2")),
        ):
            send(data, source)
        listeners.wait_until_handled(2)
        counters = app._operations.status.counters()["udp"]

    assert seen == [(2, "127.0.0.2"), (4, "127.0.0.2")]
    assert (counters["received"], counters["denied"], counters["invalid"]) == (6, 3, 1)


@contextmanager
def behind_a_proxy(**settings: Any) -> Iterator[tuple[Listeners, list[Any]]]:
    """A daemon that trusts 127.0.0.7, and the peers that its handler sees."""
    app, peers = Daemon("app"), []
    app.add_event_handler(lambda event, meta: peers.append(meta.peer))

    @app.route("/who")
    def who() -> list[str]:
        return [flask.request.remote_addr or "", flask.request.scheme, flask.request.host]

    with listening(app, {"trusted_proxies": ["127.0.0.7"], **settings}) as listeners:
        yield listeners, peers


FORWARDED = {
    "X_Forwarded_For": "203.0.113.9, 192.0.2.5",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "billing.example",
}


def test_a_trusted_proxy_is_believed_and_nobody_else() -> None:
    with behind_a_proxy(allow_from=["192.0.2.0/24", "127.0.0.8"]) as (listeners, peers):
        found = [
            json.loads(ask(listeners.public, "GET", "/who", source=source, **FORWARDED).body)
            for source in ("127.0.0.7", "127.0.0.8")
        ]
        for source in ("127.0.0.7", "127.0.0.8"):
            # By the fast lane, and by Flask's route.
            for fields in (FORWARDED, {**FORWARDED, "Cookie": "a=b"}):
                assert ask_route(listeners.public, "events", source=source, **fields).code == 200
        elsewhere = {**FORWARDED, "X_Forwarded_For": "192.0.2.5, 203.0.113.9"}
        for fields in (elsewhere, {**elsewhere, "Cookie": "a=b"}, {"X_Forwarded_For": "unknown"}):
            code = ask_route(listeners.public, "events", source="127.0.0.7", **fields).code
            assert code == 403
        listeners.wait_until_handled(4)

    assert found[0] == ["192.0.2.5", "https", "billing.example"]
    assert found[1] == ["127.0.0.8", "http", "localhost:5151"]
    assert peers[:2] == ["192.0.2.5"] * 2
    assert {peer.split(":")[0] for peer in peers[2:]} == {"127.0.0.8"}


def test_x_forwarded_for_given_twice_is_one_list() -> None:
    with behind_a_proxy() as (listeners, peers):
        for cookie in ("", "Cookie: a=b\r\n"):
            with socket.create_connection(listeners.public, 10, ("127.0.0.7", 0)) as sock:
                sock.sendall(
                    b"POST /events HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.1\r\n"
                    b"%sX-Forwarded-For: 192.0.2.5:80\r\nX_Forwarded_For: 203.0.113.2\r\n"
                    b"Content-Length: 1\r\n\r\n1" % cookie.encode()
                )
                assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
        listeners.wait_until_handled(2)

    assert peers == ["192.0.2.5"] * 2


def test_the_host_that_a_trusted_proxy_names_is_the_one_that_counts() -> None:
    with behind_a_proxy(allowed_hosts=["billing.example"]) as (listeners, _):
        for path in ("events", "status"):
            for source, host, forwarded, code in (
                ("127.0.0.7", "evil.example", "billing.example", 200),
                ("127.0.0.7", "billing.example", "evil.example", 403),
                ("127.0.0.8", "evil.example", "billing.example", 403),
                ("127.0.0.8", "billing.example", "evil.example", 200),
            ):
                fields = {"Host": host, "X_Forwarded_Host": forwarded}
                found = ask_route(listeners.public, path, source=source, **fields).code
                assert found == code, (path, source, host)
        site = {"Origin": "https://billing.example", "X_Forwarded_Host": "billing.example"}
        assert ask_route(listeners.public, "events", source="127.0.0.7", **site).code == 200


def test_a_proxy_on_a_unix_socket_may_be_trusted(tmp_path: Path) -> None:
    host = f"unix:{tmp_path / 'http.sock'}"
    for proxies, expected in ((["unix"], "192.0.2.5"), (["127.0.0.7"], "unix")):
        settings = {"host": host, "trusted_proxies": proxies}
        with behind_a_proxy(**settings) as (listeners, peers):
            for fields in (FORWARDED, {**FORWARDED, "Cookie": "a=b"}):
                assert ask_route(listeners.public, "events", **fields).code == 200
            listeners.wait_until_handled(2)
        assert peers == [expected] * 2


# Intakes


def test_without_http_as_an_intake_events_are_404_and_the_rest_is_there() -> None:
    app, seen = Daemon("app"), []
    app.add_event_handler(seen.append)
    with listening(app, {"intake": ["udp"]}) as listeners:
        refused = [ask_route(listeners.public, "events", **f) for f in ({}, {"Cookie": "a=b"})]
        codes = [ask_route(listeners.public, path).code for path in ("status", "ping", "ready")]
        state = app._assembly.parts.server.counters()["fast_lane"]  # type: ignore[union-attr]
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"1", listeners.public)
        listeners.wait_until_handled(1)

    assert [(a.code, a.message) for a in refused] == [
        (404, "Events are not accepted over HTTP (intake)")
    ] * 2
    assert codes == [200] * 3
    assert state == "closed: intake has no http"
    assert seen == [1]


def test_without_udp_as_an_intake_the_port_is_free_for_datagrams() -> None:
    with listening(Daemon("app"), {"intake": ["http"]}) as listeners:
        assert listeners.parts.udp is None
        assert listeners.app._operations.status.counters()["udp"] == NO_DATAGRAMS
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            assert not isinstance(listeners.public, str)
            sock.bind(listeners.public)


# Who sent an event


@pytest.mark.parametrize("is_durable", [False, True])
def test_the_handler_is_told_whose_token_it_was(is_durable: bool, tmp_path: Path) -> None:
    app, seen = Daemon("app"), []
    app.add_event_handler(lambda event, meta: seen.append((event, meta.sender, meta.source)))
    tokens = {**TOKENS, "other": {"token": Secret(SECRETS["wrong"]), "may": ["send"]}}
    queue = str(tmp_path / "events.db") if is_durable else None
    master = {"allow_from": ["127.0.0.0/8"], "tokens": tokens, "queue": queue}
    with listening(app, master) as listeners:
        for number, (who, fields) in enumerate(
            [("send", {}), ("send", {"Cookie": "a=b"}), ("wrong", {}), ("wrong", {"Cookie": "a"})]
        ):
            body = str(number).encode()
            assert ask(listeners.public, "POST", "/events", body, who, **fields).code == 200
        ndjson = {"Content_Type": "application/x-ndjson"}
        assert ask(listeners.public, "POST", "/events", b"4\n5", "send", **ndjson).code == 200
        app.put_event(6)
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"7", listeners.public)
        listeners.wait_until_handled(8)

    assert sorted(seen) == [
        *((0, "send", "http"), (1, "send", "http"), (2, "other", "http"), (3, "other", "http")),
        *((4, "send", "http"), (5, "send", "http"), (6, None, "app"), (7, None, "udp")),
    ]


def test_a_token_that_is_not_needed_names_the_sender_and_a_wrong_one_is_nobodys() -> None:
    app, seen = Daemon("app"), []
    app.add_event_handler(lambda event, meta: seen.append(meta.sender))
    with listening(app, {"tokens": {"read": TOKENS["read"]}}) as listeners:
        for who in ("nobody", "wrong", "read"):
            for fields in ({}, {"Cookie": "a=b"}):
                assert ask_route(listeners.public, "events", who=who, **fields).code == 200
        listeners.wait_until_handled(6)

    assert seen == [None, None, None, None, "read", "read"]


def test_the_sender_is_kept_over_a_retry_and_a_restart(tmp_path: Path) -> None:
    seen: list[Any] = []

    def daemon() -> Daemon:
        app = Daemon("app")

        @app.on_event(retries=3, backoff=0.01)
        def handle(event: Any, meta: Any) -> None:
            seen.append((event, meta.attempt, meta.sender, meta.peer.split(":")[0]))
            if event == "retry" and meta.attempt < 3:
                raise ValueError("no")
            if event == "wait":
                # The next event stays in the file.
                queue: Any = app._on_demand.queue
                while not queue._waiting.closed:
                    app.shutdown.wait(0.002)

        return app

    master = {"tokens": TOKENS, "intake": ["http"], "queue": str(tmp_path / "events.db")}
    with listening(daemon(), master) as listeners:
        ask(listeners.public, "POST", "/events", b'"retry"', "send")
        listeners.wait_until_handled(1)
        ask(listeners.public, "POST", "/events", b'"wait"', "send")
        ask(listeners.public, "POST", "/events", b'"later"', "send", Cookie="a=b")
    with listening(daemon(), master) as listeners:
        listeners.wait_until_handled(1)

    assert seen == [
        *(("retry", n, "send", "127.0.0.1") for n in (1, 2, 3)),
        *((event, 1, "send", "127.0.0.1") for event in ("wait", "later")),
    ]


def test_the_body_of_a_control_request_is_small_and_may_be_zipped(app: Daemon) -> None:
    with running(app) as client:

        def show(body: bytes, **headers: str) -> tuple[int, str]:
            fields = {name.replace("_", "-"): text for name, text in headers.items()}
            answer = client.post("/control/show", data=body, headers=fields)
            return answer.status_code, answer.json()["message"]

        missing = (404, "There is no dead letter 7")
        assert show(b'{"id": 7}') == missing
        assert show(gzip.compress(b'{"id": 7}'), Content_Encoding="gzip") == missing
        assert show(b"{}", Content_Encoding="br")[0] == 415
        assert show(b'{"id": %s7}' % (b" " * 2**16))[0] == 413
        assert show(b'{"id": "7"}') == (400, "id must be a number, not '7' (str)")
