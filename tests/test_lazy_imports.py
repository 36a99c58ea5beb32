"""What the package and the command line import only when it is needed."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest

import daemonkit

from .test_layers import PACKAGE


def modules_after(code: str) -> set[str]:
    """The modules that a new interpreter has imported after running `code`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        check=True,
        text=True,
    )
    return set(done.stdout.splitlines()[-1].split())


def test_the_package_alone_imports_none_of_its_modules() -> None:
    found = modules_after("import daemonkit\ndaemonkit.__version__\ndir(daemonkit)")

    assert {name for name in found if name.partition(".")[0] == "daemonkit"} == {
        "daemonkit",
        "daemonkit._version",
    }


def test_every_public_name_is_that_of_its_module() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    typed = {
        alias.name: node.module
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in ast.walk(block)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert sorted({*typed, "__version__"}) == sorted(daemonkit.__all__)
    for name, module in typed.items():
        origin = importlib.import_module(f"daemonkit.{module}")
        assert getattr(daemonkit, name) is getattr(origin, name)


def test_dir_and_a_star_import_know_every_public_name() -> None:
    names: dict[str, object] = {}
    exec("from daemonkit import *", names)

    assert {*daemonkit.__all__} <= {*dir(daemonkit)}
    assert {*daemonkit.__all__} <= {*names}


def test_the_original_s_modules_are_attributes_after_a_plain_import() -> None:
    code = "import daemonkit\ndaemonkit.master.Master\ndaemonkit.slave.Slave"

    assert {"daemonkit.master", "daemonkit.slave"} <= modules_after(code)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="^module 'daemonkit' has no attribute 'Slaves'$"):
        daemonkit.Slaves  # noqa: B018
