"""Texts with secrets in them, for hypothesis and by hand."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st

from daemonkit.config.redaction import HIDDEN

Write = Callable[[str], str]

examples = settings(max_examples=10)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\\'\"&<>%+/ \n\t$"))
SECRETS = TEXTS.filter(lambda text: len(text.strip()) >= 3 and text.strip() not in HIDDEN)


def in_bytes(text: str) -> str:
    return repr(text.encode("utf-8", "surrogatepass"))


def in_base64(text: str) -> str:
    return b64encode(text.encode()).decode().rstrip("=")
