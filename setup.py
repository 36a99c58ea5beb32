"""What pyproject.toml can't say: on a package index, the README's links within the repository lead
nowhere, so there they are only text."""

import re
from pathlib import Path

from setuptools import setup

LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)[^)]+\)")

setup(
    long_description=LINK.sub(r"\1", Path(__file__).with_name("README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
