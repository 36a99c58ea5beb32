from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daemonkit import ConfigError, Daemon, RegistrationError
from daemonkit.cli.loader import load_daemon
from daemonkit.config.in_force import COMMAND_LINE
from daemonkit.config.loading import Given, Override
from daemonkit.exceptions import LoadError


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write a module (by default mymod.py) into the current folder, and forget it afterwards."""
    before, path = set(sys.modules), sys.path[:]
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "mymod.py") -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("from daemonkit import Daemon\n" + text)

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - before:
        del sys.modules[name]


TWO = "first = Daemon('first')\nsecond = Daemon('second')\n"


@pytest.mark.parametrize(
    ("text", "target", "name"),
    [
        (TWO, "mymod:second", "second"),
        (TWO + "app = second", "mymod", "second"),
        ("only = Daemon('only')\nalias = only", "mymod", "only"),
        ("class A:\n    inner = Daemon('inner')", "mymod:A.inner", "inner"),
        ("def create_app():\n    return Daemon('made')", "mymod:create_app()", "made"),
        ("class MyDaemon(Daemon): ...", "mymod:MyDaemon", "MyDaemon"),
        ("class MyDaemon(Daemon): ...", "mymod:MyDaemon()", "MyDaemon"),
        ("class Mine(Daemon): ...\ndef make():\n    return Mine", "mymod:make()", "Mine"),
        (TWO, "./mymod.py:first", "first"),
        (TWO, "mymod.py:first", "first"),
    ],
)
def test_a_target_names_a_daemon_in_several_forms(
    module: Callable[..., None], text: str, target: str, name: str
) -> None:
    module(text)

    assert load_daemon(target).name == name


def test_a_factory_that_takes_a_parameter_is_given_the_configuration(
    module: Callable[..., None],
) -> None:
    module("def make(config):\n    return Daemon(config['name'])")
    token = COMMAND_LINE.set(Given(overrides=(Override.parse("name=x"),)))
    try:
        assert load_daemon("mymod:make()").name == "x"
    finally:
        COMMAND_LINE.reset(token)


def test_a_factory_with_further_parameters_is_refused_in_one_line(
    module: Callable[..., None],
) -> None:
    module("def make(a, b): ...")
    with pytest.raises(RegistrationError, match=r"^daemonkit run takes a function that can be"):
        load_daemon("mymod:make()")


def test_a_file_within_a_package_is_imported_as_part_of_it(module: Callable[..., None]) -> None:
    module("", "sub/pkg/__init__.py")
    module("name = 'relative'", "sub/pkg/names.py")
    module("from .names import name\napp = Daemon(name)", "sub/pkg/main.py")

    assert load_daemon("sub/pkg/main.py:app").name == "relative"


def test_a_package_s_own_file_is_the_package(module: Callable[..., None]) -> None:
    module("app = Daemon('pkg')", "sub/pkg2/__init__.py")

    assert load_daemon("sub/pkg2/__init__.py").name == "pkg"


NOTHING_LIKE_IT = "mymod has no attribute 'zzz'"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("", "nowhere:app", "there is no module 'nowhere' in {here} or on the import path"),
        ("", "mymod.sub:app", "there is no module 'mymod.sub' in {here} or on the import path; did you mean mymod:sub?"),
        ("", "nowhere.py:app", "there is no file nowhere.py"),
        ("", "dir/nowhere", "there is no file dir/nowhere"),
        ("", ":app", "':app' is not MODULE or MODULE:ATTR, as in mymod:app"),
        ("", "mymod:a b", "'mymod:a b' is not MODULE or MODULE:ATTR, as in mymod:app"),
        ("application = 1", "mymod:aplication", "mymod has no attribute 'aplication'; did you mean application?"),
        ("", ".mymod:app", "'.mymod:app' is not MODULE or MODULE:ATTR, as in mymod:app"),
        ("", "..", "'..' is not MODULE or MODULE:ATTR, as in mymod:app"),
        ("", "mymod:zzz", NOTHING_LIKE_IT),
        ("app = 5", "mymod:app", "mymod:app is not a Daemon but 5 (int)"),
        ("app = 5", "mymod:app()", "app() can't be called: it is 5 (int)"),
        ("", "mymod", "mymod has no Daemon in it"),
        ("class Mine(Daemon): ...", "mymod", "mymod has no Daemon in it; for a subclass, write mymod:Mine"),
        (TWO, "mymod", "mymod has several daemons; choose one: mymod:first, mymod:second"),
    ],
)  # fmt: skip
def test_each_failure_is_reported_in_one_line(
    module: Callable[..., None], tmp_path: Path, text: str, target: str, message: str
) -> None:
    module(text)
    with pytest.raises(LoadError) as caught:
        load_daemon(target)

    assert str(caught.value) == message.format(here=tmp_path)
    assert caught.value.traceback == ""


def test_a_factory_without_its_parentheses_is_recognized(module: Callable[..., None]) -> None:
    module("def make():\n    return Daemon('x')")
    with pytest.raises(LoadError) as caught:
        load_daemon("mymod:make")

    assert str(caught.value).endswith("; to call it as a factory, write 'mymod:make()'")


@pytest.mark.parametrize(
    ("text", "target", "last"),
    [
        ("import nonexistent_thing", "mymod", "ModuleNotFoundError: No module named 'nonexistent_thing'"),
        ("1 / 0", "mymod", "ZeroDivisionError: division by zero"),
        ("def make():\n    1 / 0", "mymod:make()", "ZeroDivisionError: division by zero"),
        ("def broken(:", "mymod", "SyntaxError: invalid syntax"),
        ("raise SystemExit('over')", "mymod", "SystemExit: over"),
        ("def make():\n    raise SystemExit(5)", "mymod:make()", "SystemExit: 5"),
        ("class P:\n    @property\n    def app(self): 1 / 0\np = P()", "mymod:p.app", "ZeroDivisionError: division by zero"),
        ("app = Daemon()\napp.slave(5)", "mymod", "RegistrationError: slave takes a function, not 5 (int); options are given by name"),
    ],
)  # fmt: skip
def test_an_error_inside_the_users_module_is_shown_with_its_traceback(
    module: Callable[..., None], text: str, target: str, last: str
) -> None:
    module(text)
    with pytest.raises(LoadError) as caught:
        load_daemon(target)
    lines = caught.value.traceback.strip().splitlines()

    assert lines[0] == "Traceback (most recent call last):" or "SyntaxError" in lines[-1]
    assert lines[-1].endswith(last)
    assert "mymod.py" in caught.value.traceback
    assert "importlib" not in caught.value.traceback
    assert "loader.py" not in caught.value.traceback


def test_the_cause_of_an_error_is_shown_with_it(module: Callable[..., None]) -> None:
    module("try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('x') from e")
    with pytest.raises(LoadError) as caught:
        load_daemon("mymod")

    assert "ZeroDivisionError: division by zero" in caught.value.traceback
    assert caught.value.traceback.endswith("KeyError: 'x'\n")


def test_a_file_whose_name_is_not_a_module_name_is_refused(module: Callable[..., None]) -> None:
    module("", "my.app.py")
    with pytest.raises(LoadError) as caught:
        load_daemon("my.app.py:app")

    assert str(caught.value) == (
        "my.app.py can't be imported: 'my.app' is not a valid module name; rename the file"
    )


def test_a_wrong_configuration_read_at_import_is_a_configuration_error(
    module: Callable[..., None],
) -> None:
    module("app = Daemon(config='nowhere.yaml')\nurl = app.config['url']")
    with pytest.raises(ConfigError):
        load_daemon("mymod")
    module("def make():\n    return Daemon(config='nowhere.yaml').config", "other.py")
    with pytest.raises(ConfigError):
        load_daemon("other:make()")


def test_a_file_named_like_another_module_is_refused(
    module: Callable[..., None], tmp_path: Path
) -> None:
    module("app = Daemon('json')", "json.py")
    with pytest.raises(LoadError) as caught:
        load_daemon("json.py:app")

    assert str(caught.value).startswith(f"{tmp_path}/json.py can't be imported: 'json' is ")
    assert str(caught.value).endswith("; rename the file")


def test_the_example_is_found_by_its_path() -> None:
    folder = Path(__file__).parent.parent.parent / "docs" / "examples"
    path = sys.path[:]
    try:
        daemon = load_daemon(str(folder / "hello.py"))
    finally:
        sys.path[:] = path
        del sys.modules["hello"]

    assert isinstance(daemon, Daemon)
    assert daemon.name == "hello"
