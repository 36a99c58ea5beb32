from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner

from daemonkit import Daemon
from daemonkit.cli.group import group
from daemonkit.cli.systemd import quote, unit


@pytest.mark.parametrize(
    ("argument", "written"),
    [
        ("/usr/bin/python3", "/usr/bin/python3"),
        ("[::]:5151", "[::]:5151"),
        ("", '""'),
        ("a b", '"a b"'),
        ("100%", "100%%"),
        ('say "hi" \\', '"say \\"hi\\" \\\\"'),
        ("a\nb\r\tc", '"a\\x0ab\\x0d\\x09c"'),
        ("é", '"é"'),
        ("a;b", '"a;b"'),
        ("$HOME", '"$HOME"'),
    ],
)
def test_a_word_is_written_as_systemd_reads_it(argument: str, written: str) -> None:
    assert quote(argument) == written


def lines(text: str, key: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(key)]


def test_the_unit_fits_the_daemon_and_its_configuration(tmp_path: Path) -> None:
    master = {"port": 80, "shutdown_timeout": 2.5, "log_file": str(tmp_path / "lo$g" / "x.log")}
    text = unit(
        Daemon("a\nExecStartPre=/bin/evil", {"master": master}), ["/p", "$x"], None, os.getcwd()
    )

    assert lines(text, "Description") == ["Description=a ExecStartPre=/bin/evil"]
    assert lines(text, "ExecStart") == ['ExecStart=/p "$$x"']
    assert lines(text, "TimeoutStopSec") == ["TimeoutStopSec=7.5"]
    assert lines(text, "ReadWritePaths") == [f'ReadWritePaths="{tmp_path}/lo$g"']
    assert lines(text, "CapabilityBoundingSet") == ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE"]
    assert lines(text, "DynamicUser") == ["DynamicUser=yes"]
    assert "/a-ExecStartPre-bin-evil.service\n" in text


def test_the_folder_of_the_event_queue_can_be_written_to(tmp_path: Path) -> None:
    log, queue = tmp_path / "log" / "x.log", tmp_path / "lib" / "events.db"
    for master, folders in (
        ({"queue": str(queue)}, [queue.parent]),
        ({"queue": str(queue), "log_file": str(log)}, [queue.parent, log.parent]),
        ({"queue": str(queue), "log_file": str(queue.parent / "x.log")}, [queue.parent]),
    ):
        text = unit(Daemon("a", {"master": master}), ["/p"], None, os.getcwd())
        assert lines(text, "ReadWritePaths") == [f"ReadWritePaths={' '.join(map(str, folders))}"]


def unit_for(user: str | None = None, **master: str) -> str:
    return unit(Daemon("bill", {"master": master}), ["/p"], user, "/")


@pytest.mark.parametrize("user", [None, "root"])
def test_systemd_makes_the_folders_below_its_own(user: str | None) -> None:
    queue, log = "/var/lib/dk none/a/q.db", "/var/log/dk/x.log"
    text = unit_for(user, queue=queue, log_file=log)

    assert lines(text, "StateDirectory") == ['StateDirectory="dk none/a"']
    assert lines(text, "LogsDirectory") == ["LogsDirectory=dk"]
    assert lines(text, "ReadWritePaths") == lines(text, "# /var") == []
    text = unit_for(user, host="unix:/run/dk/http.sock", admin="unix:/run/dk/admin.sock")
    assert lines(text, "RuntimeDirectory") == ["RuntimeDirectory=dk"]
    # There they are once the unit has run.
    text = unit_for(queue="/var/lib/private/dk/q.db")
    assert lines(text, "StateDirectory") == ["StateDirectory=dk"]
    # Not all of /var/lib.
    assert lines(unit_for(queue="/var/lib/q.db"), "StateDirectory") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="changes the owner of a folder")
def test_systemd_does_not_take_over_the_folder_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.cli.systemd.MANAGED", {str(tmp_path): "StateDirectory"})
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, -1)
    text = unit_for(queue=f"{folder}/q.db")
    assert lines(text, "StateDirectory") == []
    assert lines(text, "ReadWritePaths") == [f"ReadWritePaths={folder}"]
    os.chown(folder, 61184, -1)
    assert lines(unit_for(queue=f"{folder}/q.db"), "StateDirectory") == ["StateDirectory=theirs"]


@pytest.mark.parametrize(
    ("mode", "user", "note"),
    [
        (0o755, None, "is not writable for the service's user: use --user, or use /var/lib/bill, which systemd makes."),
        (0o755, "nobody", "is not writable for the service's user: change its owner to nobody, or use /var/lib/bill, which systemd makes."),
        (None, None, "does not exist: create it, or use /var/lib/bill."),
        (0o777, None, None),
        (0o777, "nobody", None),
        (0o755, "root", None),
        (0o755, "dk-unknown", None),
    ],
)  # fmt: skip
def test_a_folder_that_the_service_could_not_write_to_is_noted(
    tmp_path: Path, mode: int | None, user: str | None, note: str | None
) -> None:
    folder = tmp_path / "data"
    if mode is not None:
        folder.mkdir()
        folder.chmod(mode)
    text = unit_for(user, queue=f"{folder}/q.db")

    assert lines(text, f"# {folder}") == ([f"# {folder} {note}"] if note else [])
    assert lines(text, "ReadWritePaths") == [f"ReadWritePaths={folder}"]


def test_a_device_needs_no_folder() -> None:
    text = unit_for(log_file="/dev/null")

    assert lines(text, "ReadWritePaths") == lines(text, "# /dev") == []


def test_the_variables_that_the_configuration_reads_come_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DK_TOKEN", "hush-hush")
    monkeypatch.delenv("DK_LEVEL", raising=False)
    config = tmp_path / "cfg.yaml"
    config.write_text("a: !secret env:DK_TOKEN\nb: [!env [DK_LEVEL, x], !env DK_TOKEN]\n")
    text = unit(Daemon("bill", str(config)), ["/p"], None, "/")

    assert lines(text, "EnvironmentFile") == ["EnvironmentFile=-/etc/bill.env"]
    assert lines(text, "# Variables") == [
        "# Variables that the configuration reads, as lines NAME=VALUE: DK_TOKEN, DK_LEVEL"
    ]
    assert "hush" not in text
    assert lines(unit(Daemon("a", {}), ["/p"], None, "/"), "EnvironmentFile") == []


def test_files_that_only_their_owner_may_read_are_noted() -> None:
    # The folder that pytest creates for its user isn't accessible.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "token").write_text("hush")
        (folder / "token").chmod(0o600)
        (folder / "cfg.yaml").write_text("a: !secret file:token")
        (folder / "cfg.yaml").chmod(0o644)
        daemon = Daemon("bill", str(folder / "cfg.yaml"))
        own, root = (unit(daemon, ["/p"], user, "/") for user in (None, "root"))

    assert lines(own, f"# {folder}") == [
        f"# {folder}/token is not accessible to other users: use --user, or move the daemon."
    ]
    assert lines(root, f"# {folder}") == []


def test_a_unit_may_name_a_user_and_needs_no_capability_for_a_high_port(tmp_path: Path) -> None:
    text = unit(Daemon("я", {}), ["/p"], "www-data", os.getcwd())

    assert lines(text, "User") == ["User=www-data"]
    assert lines(text, "DynamicUser") == lines(text, "ReadWritePaths") == []
    assert lines(text, "AmbientCapabilities") == ["AmbientCapabilities="]
    assert "/etc/systemd/system/daemon.service\n" in text


@pytest.mark.parametrize(
    ("master", "is_needed"),
    [
        ({"port": 80}, True),
        ({"admin": "127.0.0.1:81"}, True),
        ({"admin": "[::1]:1024", "port": 0}, False),
        ({"admin": "unix:/run/a.sock", "port": 81}, True),
        ({"host": "unix:/run/b.sock", "port": 81}, False),
    ],
)
def test_any_low_port_needs_the_capability(master: dict[str, Any], is_needed: bool) -> None:
    text = unit(Daemon("a", {"master": master}), ["/p"], None, os.getcwd())

    assert ("AmbientCapabilities=CAP_NET_BIND_SERVICE" in text.splitlines()) == is_needed


def test_folders_closed_to_others_are_noted(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "prog.py").touch()
    command = [str(closed / "prog.py")]
    notes = lines(unit(Daemon("a"), command, None, os.getcwd()), "# /")

    # The folder that pytest creates for its user isn't accessible either.
    assert all(
        " is not accessible to other users: use --user, or move the daemon." in line
        for line in notes
    )
    assert any(str(closed).startswith(line.split()[1]) for line in notes)
    assert lines(unit(Daemon("a"), command, "root", os.getcwd()), "# /") == []


def test_a_module_that_changes_the_current_folder_changes_no_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cfg.yaml").write_text("master: {queue: q.db}")
    monkeypatch.chdir(tmp_path)

    def load_daemon(target: str) -> Daemon:
        os.chdir("/")
        return Daemon(target)

    monkeypatch.setattr("daemonkit.cli.options.load_daemon", load_daemon)
    text = CliRunner().invoke(group, ["systemd", "mymod.py", "-c", "cfg.yaml"]).stdout

    assert lines(text, "WorkingDirectory") == [f"WorkingDirectory={tmp_path}"]
    assert lines(text, "ReadWritePaths") == [f"ReadWritePaths={tmp_path}"]
    (command,) = lines(text, "ExecStart")
    assert command.endswith(f" run {tmp_path}/mymod.py --config {tmp_path}/cfg.yaml")


def test_a_file_that_can_be_read_only_once_is_refused_in_a_unit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("daemonkit.cli.options.load_daemon", lambda target: Daemon(target))
    for options in (["--config", "{}"], ["--set", "a=!secret file:{}"]):
        reader, writer = os.pipe()
        os.write(writer, b"a: 1")
        os.close(writer)
        path = f"/dev/fd/{reader}"
        named = [option.format(path) for option in options]
        result = CliRunner().invoke(group, ["systemd", "mymod:app", *named])
        os.close(reader)

        assert (result.exit_code, result.stdout, result.stderr) == (
            2,
            "",
            f"daemonkit: {path} can be read only once: copy its content to a file that the unit can "
            "name\n",
        )


def test_a_unit_that_systemd_could_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.cli.options.load_daemon", lambda target: Daemon("app"))
    result = CliRunner().invoke(group, ["systemd", "mymod", "--user", "\udcff"])

    assert (result.exit_code, result.stdout, result.stderr) == (
        2,
        "",
        "daemonkit: systemd reads UTF-8 only, and this line of the unit isn't: User=\\udcff\n",
    )


def test_a_unit_names_the_file_that_stdin_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("daemonkit.cli.options.load_daemon", lambda target: Daemon(target))
    path = tmp_path / "cfg.yaml"
    path.write_text("a: 1")
    with path.open() as file:
        fd = f"/dev/fd/{file.fileno()}"
        result = CliRunner().invoke(group, ["systemd", "mymod:app", "--config", fd])

    assert f" run mymod:app --config {path}\n" in result.stdout
    assert not result.stdout.endswith("\n\n")


@pytest.mark.parametrize("user", ["", "a b", "a:b", "a\nExecStart=/x", "a\x1b", "a/b"])
def test_a_user_s_name_adds_no_line_to_the_unit(user: str) -> None:
    result = CliRunner().invoke(group, ["systemd", "mymod", "--user", user])

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for --user: {user!r} can't be a user's name" in result.stderr


def test_the_unit_may_run_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("several.py").write_text("from daemonkit import Daemon\napp = Daemon()\n")
    text = CliRunner().invoke(group, ["systemd", "several.py", "--workers", "3"]).stdout

    (command,) = lines(text, "ExecStart=")
    assert command.endswith(" --workers 3")
