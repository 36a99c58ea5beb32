"""A room imports only from layers below its own, or from rooms before it in its own row."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "daemonkit"

LAYERS = [
    ["_version", "exceptions", "types"],
    ["text", "callables", "system", "runtime"],
    ["config", "supervision", "events"],
    [
        "events.durable",
        "events.shared",
        "hooks",
        "gauges",
        "monitoring",
        "routing",
        "registry",
        "slave_commands",
        "alert_commands",
    ],
    ["web"],
    ["lifecycle"],
    ["app", "master", "slave"],
    ["testing", "cli"],
]
"""Rooms: folders, and modules that stand alone."""
PUBLIC = ["", "__main__"]
"""The package itself, and `python -m`: they may import from everywhere."""
LAZY = {
    "AccessLog",
    "Alertmanager",
    "ChunkedBody",
    "CollectorRegistry",
    "CompletionItem",
    "Conditions",
    "DurableQueue",
    "Exposition",
    "FileHandler",
    "Limits",
    "LoggedLane",
    "MetricsView",
    "PageFiles",
    "SharedEditor",
    "SharedQueue",
    "Webhook",
    "asyncio",
    "check_path",
    "configured",
    "group",
    "parse",
    "requests",
    "run_workers",
    "shown_options",
    "version",
}
"""Imported inside functions, since few runs need them. Besides, the package itself imports its
names on first use, and the command line the module of each command."""
RANK = {
    room: (layer, place)
    for layer, row in enumerate([*LAYERS, PUBLIC])
    for place, room in enumerate(row)
}
MODULES = sorted(
    str(file.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix("__init__")
    for file in PACKAGE.rglob("*.py")
)
NAMES = {module.rstrip(".") for module in MODULES}


def _room(module: str) -> str:
    """The room of a module: the innermost folder that the table names, or the module itself."""
    parts = module.split(".")
    prefixes = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((prefix for prefix in prefixes if prefix in RANK), module)


def _tree(module: str) -> ast.Module:
    return ast.parse(_file(module).read_text("utf-8"))


def _file(module: str) -> Path:
    path = PACKAGE / module.rstrip(".").replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _imported(module: str) -> set[str]:
    name = module.rstrip(".")
    is_package = (PACKAGE / name.replace(".", "/")).is_dir()
    here = name.split(".") if is_package and name else name.split(".")[:-1]
    found = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                full = ".".join([*base, alias.name])
                found.add(full if full in NAMES else ".".join(base))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not any(str(n).startswith("daemonkit") for n in names), "import relatively"
    return found


def test_the_table_names_every_room() -> None:
    assert {_room(module.rstrip(".")) for module in MODULES} == set(RANK)


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_below(module: str) -> None:
    room = _room(module.rstrip("."))
    above = {
        other
        for other in _imported(module)
        if _room(other) != room and RANK[_room(other)] >= RANK[room]
    }

    assert above == set()


def test_there_are_no_import_cycles() -> None:
    graph = {module.rstrip("."): _imported(module) for module in MODULES}

    assert set(TopologicalSorter(graph).static_order()) == NAMES


@pytest.mark.parametrize("module", MODULES)
def test_only_what_few_runs_need_is_imported_inside_a_function(module: str) -> None:
    inside = {
        alias.name
        for function in ast.walk(_tree(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert inside <= LAZY


@pytest.mark.parametrize("module", MODULES)
def test_no_module_is_longer_than_350_lines(module: str) -> None:
    # Parts are assembled in lifecycle/, not by the Daemon.
    most = 299 if module == "app" else 350
    assert len(_file(module).read_text("utf-8").splitlines()) <= most


def test_every_module_has_a_test_module_in_the_mirrored_place() -> None:
    exempt = {"", "__main__", "_version"}
    modules = {module for module in MODULES if not module.endswith(".")} - exempt
    tests = {module: TESTS / _mirrored(module) for module in modules}

    assert sorted(module for module, file in tests.items() if not file.exists()) == []


def _mirrored(module: str) -> str:
    *rooms, name = module.split(".")
    return "/".join([*rooms, f"test_{name.strip('_')}.py"])
