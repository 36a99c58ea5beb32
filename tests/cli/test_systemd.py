from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from daemonkit import Daemon
from daemonkit.cli import main
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


def test_a_unit_may_name_a_user_and_needs_no_capability_for_a_high_port(tmp_path: Path) -> None:
    text = unit(Daemon("я", {}), ["/p"], "www-data", os.getcwd())

    assert lines(text, "User") == ["User=www-data"]
    assert lines(text, "DynamicUser") == lines(text, "ReadWritePaths") == []
    assert lines(text, "AmbientCapabilities") == ["AmbientCapabilities="]
    assert "/etc/systemd/system/daemon.service\n" in text


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
    text = CliRunner().invoke(main, ["systemd", "mymod.py", "-c", "cfg.yaml"]).stdout

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
        result = CliRunner().invoke(main, ["systemd", "mymod:app", *named])
        os.close(reader)

        assert (result.exit_code, result.stdout, result.stderr) == (
            2,
            "",
            f"daemonkit: {path} can be read only once: copy its content to a file that the unit can "
            "name\n",
        )


def test_a_unit_that_systemd_could_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemonkit.cli.options.load_daemon", lambda target: Daemon("app"))
    result = CliRunner().invoke(main, ["systemd", "mymod", "--user", "\udcff"])

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
        result = CliRunner().invoke(main, ["systemd", "mymod:app", "--config", fd])

    assert f" run mymod:app --config {path}\n" in result.stdout
    assert not result.stdout.endswith("\n\n")
