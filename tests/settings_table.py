"""The table of settings in docs/configuration.md, made from `daemonkit/config/defaults.py`.

Run `python -m tests.settings_table` to update the page.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from daemonkit.cli.options import flag
from daemonkit.config.checks import size_text
from daemonkit.config.defaults import SETTINGS, Setting

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: made by `python -m tests.settings_table` -->\n", "<!-- end -->\n"


def table() -> str:
    rows = ["| setting | default | value | what it is |", "| --- | --- | --- | --- |"]
    for setting in SETTINGS.values():
        option = f" Also `{flag(setting.name)}`." if setting.option else ""
        cells = (f"`{setting.name}`", f"`{_default(setting)}`", setting.check.text)
        cells = (*cells, setting.help + option)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _default(setting: Setting) -> str:
    if setting.check.text.startswith("a size") and setting.default is not None:
        return size_text(setting.default)
    return str(yaml.safe_dump(setting.default, default_flow_style=True)).split("\n")[0]


def with_table(page: str) -> str:
    """The page with its table replaced."""
    pattern = f"({re.escape(BEGIN)}).*({re.escape(END)})"
    return re.sub(pattern, lambda match: match[1] + table() + match[2], page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
