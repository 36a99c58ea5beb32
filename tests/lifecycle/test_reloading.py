from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from daemonkit import Daemon
from daemonkit.monitoring.systemd_notifier import SystemdNotifier
from daemonkit.testing import running


def broken_hook() -> None:
    raise ValueError("no database")


def test_a_reload_applies_new_values_and_keeps_the_old_ones_when_the_file_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = tmp_path / "cfg.yaml"
    path.write_text("master: {host: 127.0.0.1, port: 0}\na: 1\n")
    app = Daemon("app", config=path)
    reloaded: list[Any] = []
    app.add_reload_hook(broken_hook)
    app.on_reload(lambda: reloaded.append(app.config["a"]))
    started = threading.Event()
    thread = threading.Thread(target=app.serve, args=[started])
    thread.start()
    assert started.wait(10)
    port = app.master_config["port"]
    path.write_text(
        "master: {host: '::1', port: 0, queue_size: 5, hidden_opts: [a]}\na: 2\nb: 3\nmster: {}\n"
    )
    app._reloader.reload()
    shown = app.status()
    path.write_text("a: [")
    app._reloader.reload()
    app.stop()
    thread.join()

    assert reloaded == [2]
    assert app.config == {"a": 2, "b": 3, "mster": {}}
    assert shown["config"] == {"a": "*** HIDDEN ***", "b": 3, "mster": {}}
    assert any("'mster' looks like a misspelled 'master'" in m for m in caplog.messages)
    assert app.master_config["port"] == port != 0
    assert (
        "Changed, but in force only after a restart: master.host, master.queue_size"
        in caplog.messages
    )
    assert "The reload hook broken_hook failed" in caplog.messages
    assert any(m.startswith("Not reloaded, the old configuration stays:") for m in caplog.messages)


def test_a_reload_sets_the_level_of_the_daemon_s_log(tmp_path: Path) -> None:
    path, log = tmp_path / "cfg.yaml", tmp_path / "app.log"
    path.write_text(f"master: {{log_file: {log}, log_level: error}}\n")
    app = Daemon("app")
    with running(app, str(path)):
        path.write_text(f"master: {{log_file: {log}, log_level: debug}}\n")
        app._reloader.reload()
        app.logger.debug("reloaded")

    assert "reloaded" in log.read_text()


def test_systemd_is_told_when_a_reload_begins_and_when_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Daemon("app")
    told: list[str] = []
    app.add_reload_hook(lambda: told.append("hook"))
    monkeypatch.setattr(SystemdNotifier, "reloading", lambda self: told.append("reloading"))
    monkeypatch.setattr(SystemdNotifier, "reloaded", lambda self: told.append("reloaded"))
    with running(app):
        app._reloader.reload()

    assert told == ["reloading", "hook", "reloaded"]


def test_stop_hooks_wait_for_the_reload_hook_that_runs_and_no_other_begins() -> None:
    app = Daemon("app")
    order: list[str] = []
    entered = threading.Event()

    @app.on_reload
    def slow() -> None:
        entered.set()
        app.shutdown.wait(10)
        threading.Event().wait(0.1)
        order.append("reload")

    app.add_reload_hook(lambda: order.append("late reload"))
    app.add_stop_hook(lambda: order.append("stop"))
    with running(app):
        thread = threading.Thread(target=app._reloader.reload)
        thread.start()
        entered.wait(10)
    thread.join()

    assert order == ["reload", "stop"]
