"""Generated JSON values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# `st.text()` would first look for all characters that UTF-8 has, ten seconds in a fresh clone.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def json_values(
    text: st.SearchStrategy[str] = TEXT, *, finite: bool = True, max_leaves: int = 8
) -> st.SearchStrategy[Any]:
    """Values of all JSON types; unless `finite`, NaN and Infinity too, which are not JSON."""
    special = False if finite else None
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**60), 10**60)
        | st.floats(allow_nan=special, allow_infinity=special)
        | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=max_leaves,
    )
