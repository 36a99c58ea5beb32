"""The queue of many daemons, from outside: over HTTP and UDP, with a real engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from daemonkit import Daemon, StartError
from daemonkit.testing import running

from .. import failover, nodes, partition
from ..engines import Engine
from .process import Process, seconds_of
from .tools import missing, need


def make(handled: list[Any] | None = None, **options: Any) -> Daemon:
    app = Daemon("app")

    @app.on_event(**options)
    def handle(event: Any) -> None:
        if event == "fail":
            raise ValueError("as asked")
        if handled is not None:
            handled.append(event)

    return app


def queue(engine: Engine, **master: Any) -> dict[str, Any]:
    return {"master": {"queue": engine.address(), "node_timeout": 2, **master}}


def test_two_daemons_share_a_queue(engine: Engine) -> None:
    handled: list[Any] = []
    with (
        running(make(handled), queue(engine)) as one,
        running(make(handled), queue(engine)) as other,
    ):
        for number in range(50):
            one.send_event(number)
            other.send_event(100 + number)
            one.send_datagram(b"%d" % (200 + number))
        batch = "\n".join(map(str, range(300, 400)))
        answer = other.post("/events", data=batch, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json()["message"] == "100 events received"
        one.wait_until(lambda: len(handled) == 250)
        assert sorted(handled) == [*range(50), *range(100, 150), *range(200, 250), *range(300, 400)]
        events = one.wait_until(lambda: len((e := one.status()["events"])["nodes"]) == 2 and e)
        assert events["engine"]["up"] is True
        # Of what other nodes do, each one knows as of its last heartbeat.
        one.wait_until(lambda: one.status()["events"]["waiting"] == 0)
        assert one.get("/ping").text == "OK\n"
        assert one.get("/status").json()["message"]["http"]["fast_events"] == 50
        metrics = one.get("/metrics").text
        assert "daemonkit_queue_nodes 2.0" in metrics
        assert "daemonkit_queue_engine_up 1.0" in metrics


def test_failed_events_are_seen_and_retried_by_any_daemon(engine: Engine) -> None:
    with running(make(), queue(engine)) as one, running(make(), queue(engine)) as other:
        one.send_event("fail")
        (event,) = one.wait_until(lambda: one.get("/status/failed").json()["message"]["events"])
        assert event == other.get("/status/failed").json()["message"]["events"][0]
        assert event["error"] == "ValueError"
        found = other.post("/control/show", json={"id": event["id"]}).json()["message"]
        assert found["event"] == '"fail"'
        answer = other.post("/control/retry", json={"ids": [event["id"]]})
        assert answer.json()["message"] == "1 failed event is retried"
        one.wait_until(lambda: one.status()["events"]["dead"] == 2)
        answer = one.post("/control/drop", json={"all": True})
        assert answer.json()["count"] == 1


def test_what_was_put_before_the_start_is_handled(engine: Engine) -> None:
    handled: list[Any] = []
    app = make(handled)
    app.put_event("early")
    with running(app, queue(engine)) as client:
        app.put_event("later")
        client.wait_until(lambda: len(handled) == 2)
        assert handled == ["early", "later"]


def test_a_full_queue_refuses_what_does_not_fit(engine: Engine) -> None:
    app = make()
    with running(app, queue(engine, queue_size=3)) as client:
        client.post("/control/pause", json={"events": True})
        for number in range(3):
            client.send_event(number)
        answer = client.post("/events", json=4)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert answer.json()["message"] == "The event queue is full (3 events)"
        batch = client.post(
            "/events", data="1\n2\n3\n4", headers={"Content-Type": "application/x-ndjson"}
        )
        assert batch.status_code == 413
        client.post("/control/resume", json={"events": True})
        # Once the results are saved.
        client.wait_until(lambda: client.post("/events", json=5).status_code == 200)


def test_an_engine_that_is_away_is_told_everywhere(own_engine: Engine) -> None:
    handled: list[Any] = []
    own_engine.kill()
    with running(make(handled), queue(own_engine)) as client:
        client.wait_until(lambda: client.get("/ready").status_code == 503)
        text = f"the event queue's engine redis://127.0.0.1:{own_engine.port}/0 is away: "
        assert client.get("/ping").text.startswith(text)
        assert (
            client.get("/ready").json()["message"].startswith(f"The daemon is running, but {text}")
        )
        client.wait_until(lambda: client.post("/events", json=1).elapsed.total_seconds() < 1)
        answer = client.post("/events", json=1)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "daemonkit_queue_engine_up 0.0" in client.get("/metrics").text
        assert "daemonkit_ready 0.0" in client.get("/metrics").text
        own_engine.start()
        took = seconds_of(
            lambda: client.wait_until(lambda: client.post("/events", json=2).status_code == 200)
        )
        client.wait_until(lambda: handled == [2])
        client.wait_until(lambda: client.get("/ready").status_code == 200)
        assert client.get("/ping").text == "OK\n"
        # One second on a machine with nothing else to do.
        assert took < 10


def test_an_engine_that_stands_still_holds_up_no_other_request(own_engine: Engine) -> None:
    with running(make(), queue(own_engine), timeout=30) as client:
        client.send_event(1)
        own_engine.send_signal(signal.SIGSTOP)
        try:
            answers: list[int] = []
            with requests.Session() as session:
                url = f"http://{client.host}:{client.port}"
                slowest = max(seconds_of(lambda: session.get(f"{url}/ping")) for _ in range(50))
                took = seconds_of(
                    lambda: answers.append(session.post(f"{url}/events", json=2).status_code)
                )
                slowest_after = max(
                    seconds_of(lambda: session.get(f"{url}/ping")) for _ in range(50)
                )
            assert answers == [503]
            # The loop doesn't wait for the engine's 5 s; the rest is for a busy machine.
            assert max(slowest, slowest_after) < 2
            assert took < 20
        finally:
            own_engine.send_signal(signal.SIGCONT)
        client.wait_until(lambda: client.post("/events", json=3).status_code == 200)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("redis://host/x", "malformed"),
        ("redis+sentinel://host/0", "malformed"),
        ("redis://u:wrong-one@127.0.0.1:{port}/0", "refuses"),
        ("redis://127.0.0.1:{port}/99", "DB index is out of range"),
    ],
)
def test_what_can_never_work_ends_the_start(engine: Engine, address: str, error: str) -> None:
    master = {"queue": address.format(port=engine.port)}
    with pytest.raises(StartError, match=error) as raised, running(make(), {"master": master}):
        pass

    assert raised.value.exit_status == 3
    assert "wrong-one" not in str(raised.value)


def test_a_password_is_never_shown(run_app: Callable[..., Process], tmp_path: Path) -> None:
    need("redis-server")
    engine = Engine(tmp_path / "engine", requirepass="hunter2-hunter2").start()
    try:
        address = engine.address().replace("//", "//default:hunter2-hunter2@")
        daemon = run_app(
            "from daemonkit import Daemon\napp = Daemon('app')\n",
            *("--set", f"master.queue={address}"),
        ).wait_ready()
        daemon.send_event(1)
        shown = daemon.get("/status").text + daemon.get("/status/config").text + daemon.out
        engine.kill()
        daemon.wait_until(lambda: daemon.get("/ping").status_code == 503)
        shown += daemon.get("/ping").text + daemon.get("/status").text
        daemon.stop()
        shown += daemon.out + daemon.err

        assert "hunter2" not in shown
    finally:
        engine.close()


def test_a_daemon_without_the_extra_says_what_to_install(run_app: Callable[..., Process]) -> None:
    daemon = run_app(
        "import sys\nsys.modules['redis'] = None\n"
        "from daemonkit import Daemon\napp = Daemon('app')\n",
        *("--set", "master.queue=redis://127.0.0.1:1/0"),
    )

    assert daemon.wait() == 3
    assert "pip install 'daemonkit[redis]'" in daemon.err + daemon.out


def test_only_a_shared_queue_imports_redis(run_app: Callable[..., Process]) -> None:
    daemon = run_app(
        "import sys\nfrom daemonkit import Daemon\napp = Daemon('app')\n"
        "app.route('/has')(lambda: str('redis' in sys.modules or 'hiredis' in sys.modules))\n"
    ).wait_ready()

    assert daemon.get("/has").text == "False"


# The scripts that harm, in short; see their own pages in the docs for longer runs


@pytest.mark.slow
@pytest.mark.parametrize("fsync", ["everysec", "always"])
def test_no_answered_event_is_missing_after_kills_and_suspensions(
    tmp_path: Path, fsync: str
) -> None:
    need("redis-server")
    result = nodes.run(10, tmp_path, fsync, time.time_ns() % 1_000_000)

    assert result.answered > 100
    assert result.missing == 0
    assert result.twice <= result.most_twice, str(result)


@pytest.mark.slow
def test_a_failover_is_survived(tmp_path: Path) -> None:
    need("redis-server")
    result = failover.run(1, tmp_path, replicas=1)

    assert result.answered > 10
    # WAIT is not consensus; see `python -m tests.failover --kills 10`.
    assert result.missing <= result.answered // 100, str(result)


@pytest.mark.slow
def test_a_host_that_was_cut_off_loses_nothing(tmp_path: Path) -> None:
    need("redis-server", "ip")
    if os.geteuid():
        missing("right to make network namespaces (root)")
    result = partition.run(5, tmp_path)

    assert result.answered > 100
    assert (result.missing, result.accepted_apart) == (0, 0), str(result)
    assert result.resumed < 20
