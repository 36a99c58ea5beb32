"""The fenced blocks of the pages: README.md, CONTRIBUTING.md, SECURITY.md and docs/*.md.

A block is exempt from being run by a comment on the line before it: `<!-- not run: REASON -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(
    r"(?:^<!-- not run: (?P<reason>.+) -->\n)?^```(?P<language>.*)\n(?P<text>(?:.*\n)*?)```$", re.M
)


class Block(NamedTuple):
    """A fenced block; reason: why it isn't run."""

    page: Path
    line: int
    language: str
    text: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    return list(_found(page, page.read_text("utf-8")))


def _found(page: Path, text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        line = text[: match.start("language")].count("\n") + 1
        yield Block(page, line, match["language"], match["text"], match["reason"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
