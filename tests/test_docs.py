from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

import pytest

import daemonkit
from daemonkit import Daemon
from daemonkit.cli.group import COMMANDS
from daemonkit.config.defaults import SETTINGS
from daemonkit.registry import Registrars
from daemonkit.testing import Client
from daemonkit.web.routes import ROUTES

from .functional.pages import PAGES
from .settings_table import PAGE, table, with_table
from .test_layers import LAYERS

ROOT = Path(__file__).parent.parent
PROSE = [*PAGES, ROOT / "CHANGELOG.md"]


def test_the_table_of_settings_is_up_to_date() -> None:
    page = PAGE.read_text("utf-8")

    assert with_table(page) == page, "run python -m tests.settings_table"
    assert table() in page
    assert table().count("\n| `") == len(SETTINGS)


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    missing = []
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        if "://" not in link and not (
            target.exists() and (not anchor or anchor in _anchors(target))
        ):
            missing.append(link)

    assert missing == []


def test_ci_calls_the_readme_s_commands() -> None:
    readme, ci = ((ROOT / name).read_text("utf-8") for name in ("README.md", ".ci/run"))
    first, second = re.findall(r"^sh \.ci/venv.*$", readme, re.MULTILINE)

    assert first.removeprefix("sh .ci/venv && ") in ci
    assert "sh .ci/venv\n" in ci
    # Other checks run beside the tests.
    assert re.search("\n.*\n".join(map(re.escape, second.split(" && "))), ci, re.DOTALL)


def test_the_reference_names_everything_public() -> None:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    names = {*vars(Daemon), *vars(Registrars), *vars(Client), *daemonkit.__all__}
    public = {name for name in names if not name.startswith("_")} - {"timeout"}

    assert sorted(name for name in public if not re.search(rf"\b{name}\b", page)) == []


def test_contributing_names_files_that_exist() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    files = re.findall(r"`((?:daemonkit|docs|tests|\.ci)/[^`]+)`", page)

    assert [file for file in files if not (ROOT / file).exists()] == []
    assert len(files) > 5


def test_the_reference_names_every_command() -> None:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")

    assert [name for name in COMMANDS if f"### `daemonkit {name}`\n" not in page] == []


def test_the_reference_names_every_route() -> None:
    page = (ROOT / "docs" / "reference.md").read_text("utf-8")

    rows = set(re.findall(r"^\| `([A-Z]+) /(\S*)` \| .* \| (?:`(\w+)` )?\|$", page, re.M))

    assert rows == {(route.method, path, route.right or "") for path, route in ROUTES.items()}


def test_the_design_page_has_the_table_of_rooms() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (.+?) \|", page, re.M)
    shown: list[list[str]] = [[] for _ in LAYERS]
    for layer, rooms in rows:
        names = re.findall(r"`([^`]+)`", rooms)
        shown[int(layer)] += [
            name.removesuffix(".py").strip("/").replace("/", ".") for name in names
        ]

    assert shown == [[room for room in layer if room != "_version"] for layer in LAYERS]


def test_the_design_page_names_every_module() -> None:
    page = (ROOT / "docs" / "design.md").read_text("utf-8")
    sections = re.findall(r"^### (\S+)/\n\n((?:- .+\n)+)", page, re.M)
    named = {
        f"{room}/{name}"
        for room, files in sections
        for name in re.findall("^- `([^`]+)`", files, re.M)
    }
    package = ROOT / "daemonkit"
    modules = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        if file.parent not in (package, package / "cli") and file.name != "__init__.py"
    }

    assert named == modules


def test_every_fault_names_its_tests() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    faults, _, _ = page.partition("\n## What isn't covered\n")
    entries = re.findall(r"^### (.+)\n((?:(?!#).*\n)*)", faults, re.M)
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    compared = (ROOT / "docs" / "otp.md").read_text("utf-8")
    named = re.findall(r"`(test_\w+)`", faults + compared)

    assert len(entries) > 60
    assert [name for name, text in entries if "`test_" not in text] == []
    assert [test for test in named if f"def {test}(" not in tests] == []


def test_every_link_works_on_a_package_index() -> None:
    description = str(metadata("daemonkit").get_payload())

    assert "# daemonkit\n" in description
    assert re.findall(r"\]\((?!https?://)[^)]*\)", description) == []


def _prose(page: Path) -> list[tuple[int, str]]:
    """The numbered lines that are neither code, nor a table, a heading or empty."""
    text = re.sub(
        r"^```.*?^```$",
        lambda m: "\n" * m[0].count("\n"),
        page.read_text("utf-8"),
        flags=re.M | re.S,
    )
    return [
        (number, line.strip())
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.startswith(("|", "#", "<!--"))
    ]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_line_has_one_sentence(page: Path) -> None:
    ends = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!^\d)[.!?][)\"*`]* (?=[A-Z`*\"(\[])")

    assert [(number, line) for number, line in _prose(page) if ends.search(line)] == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_sentence_is_on_one_line(page: Path) -> None:
    lines = dict(_prose(page))
    starts = re.compile(r"[-*] |\d+\. |!\[")
    split = [
        (number, line)
        for number, line in lines.items()
        if (following := lines.get(number + 1)) is not None
        and not re.search(r"[.:!?;][)\"*`]*$", line)
        and not starts.match(following)
    ]

    assert split == []


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_a_table_cell_has_few_words(page: Path) -> None:
    rows = re.findall(r"^\|(.+)\|$", page.read_text("utf-8"), re.M)
    cells = [cell.strip() for row in rows for cell in re.split(r"(?<!\\)\|", row)]

    # Elsewhere a dozen; that page compares case by case.
    most = 20 if page.name == "otp.md" else 12
    assert [cell for cell in cells if len(cell.split()) > most] == []
