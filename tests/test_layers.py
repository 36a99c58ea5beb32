"""A module imports only from layers below its own, or from modules above it in its own row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "daemonkit"

LAYERS = [
    ["_version", "exceptions", "types"],
    [
        "calls",
        "defaults",
        "secret",
        "yamlfile",
        "config",
        "log",
        "sockets",
        "outgoing",
        "switching",
        "stacks",
        "forks",
        "eventloop",
        "systemd",
    ],
    [
        "freshness",
        "watch",
        "events.codec",
        "events.entry",
        "events.waiting",
        "events.bounded",
        "events.memory",
        "events.database",
        "events.store",
        "events.outcomes",
        "events.owner",
        "events.file",
        "events.backlog",
        "events.group",
        "events.trouble",
        "events.spool",
        "events.editor",
        "events.rescue",
        "events.ndjson",
        "events.intake",
        "events.processor",
        "restart",
        "slave",
        "incarnation",
        "child",
        "dependencies",
        "supervisor",
        "juggler",
    ],
    ["status", "health", "notifier", "ending", "signals"],
    [
        "udp",
        "web.envelope",
        "web.blueprint",
        "web.lane",
        "web.poller",
        "web.pool",
        "web.request",
        "web.channel",
        "web.listener",
        "web.server",
    ],
    ["life", "registry", "app"],
    [
        "testing",
        "cli.loader",
        "cli.options",
        "cli.shown",
        "cli.queue",
        "cli.events",
        "cli.run",
        "cli.systemd",
    ],
]
# Packages' own files and the public names, which may take from everywhere.
TOP = ["events", "web", "", "cli", "__main__"]
RANK = {
    name: (layer, place) for layer, row in enumerate(LAYERS) for place, name in enumerate(row)
} | {name: (len(LAYERS), place) for place, name in enumerate(TOP)}
ALL = sorted(
    str(file.relative_to(PACKAGE).with_suffix("")).replace("/", ".").removesuffix("__init__")
    for file in PACKAGE.rglob("*.py")
)


def _imported(module: str) -> set[str]:
    name = module.rstrip(".")
    path = PACKAGE / name.replace(".", "/")
    is_package = path.is_dir()
    tree = ast.parse((path / "__init__.py" if is_package else path.with_suffix(".py")).read_text())
    here = name.split(".") if is_package and name else name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1]
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                full = ".".join([*base, alias.name])
                found.add(full if full in RANK else ".".join(base))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            assert not any(str(n).startswith("daemonkit") for n in names), "import relatively"
    return found


def test_the_table_names_every_module() -> None:
    assert sorted(name.rstrip(".") for name in ALL) == sorted(RANK)


@pytest.mark.parametrize("module", ALL)
def test_a_module_imports_only_from_below(module: str) -> None:
    rank = RANK[module.rstrip(".")]
    above = {other: RANK[other] for other in _imported(module) if RANK[other] >= rank}

    assert above == {}


@pytest.mark.parametrize("module", ALL)
def test_nothing_is_imported_inside_a_function_but_what_few_runs_need(module: str) -> None:
    name = module.rstrip(".")
    path = PACKAGE / name.replace(".", "/")
    tree = ast.parse(
        (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text()
    )
    inside = {
        alias.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert inside <= {"asyncio", "requests"}
