from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from daemonkit.config import redaction
from daemonkit.config.redaction import BEHIND_CUT, HIDDEN, Redactor
from daemonkit.config.spellings import SHORTEST_BASE64, SHORTEST_CUT
from daemonkit.text import describe, shorten

from .texts import SECRETS, TEXTS, Write, examples, in_base64, in_bytes

ON_A_LINE = st.text(
    st.characters(exclude_categories=["C", "Z"]) | st.sampled_from("\\'\"&<>%+/$"),
    min_size=SHORTEST_CUT + 1,
)


@settings(max_examples=100)
@given(secret=ON_A_LINE, before=TEXTS, share=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("write", [str, repr, in_bytes, quote, json.dumps])
def test_a_secret_that_was_cut_is_hidden_except_for_a_few_characters(
    write: Write, secret: str, before: str, share: float
) -> None:
    whole, begin = write(before + secret), len(write(before).rstrip("'\""))
    cut = begin + int((len(whole) - begin) * share)
    shown = Redactor([secret])(shorten(whole, cut))
    left = shown.removesuffix("...")[begin:]

    # The last of these pieces may itself be cut, and the quotation marks may differ.
    assert HIDDEN in shown or len(left) <= len(write(secret[: SHORTEST_CUT + 1])) + 2


@settings(max_examples=100)
@given(secret=ON_A_LINE, after=TEXTS, share=st.floats(0, 1))
@pytest.mark.parametrize("write", [str, repr, in_bytes, quote, json.dumps])
def test_of_a_secret_cut_at_its_beginning_a_few_characters_are_left(
    write: Write, secret: str, after: str, share: float
) -> None:
    whole = write(secret)
    if write not in (str, quote):
        whole = whole.removeprefix("b")[1:-1]
    left = whole[int(len(whole) * share) :]
    shown = Redactor([secret])(f"...{left} {after}").removesuffix(f" {after}")

    assert len(shown.replace(HIDDEN, "")) <= 3 + len(write(secret[-SHORTEST_CUT:])) + BEHIND_CUT


@pytest.mark.parametrize("text", ["Authori...{}", "'...{}'", "... {}", "… '{}', 1", "....{}"])
@pytest.mark.parametrize("secret", ["Bearer_ue-5544332211", "a5544332211", "é5544332211"])
@pytest.mark.parametrize("write", [str, in_base64])
def test_the_end_of_a_secret_is_hidden_behind_a_cut(write: Write, secret: str, text: str) -> None:
    for length in range(2, len(write(secret)) - SHORTEST_BASE64 - 1):
        shown = Redactor([secret])(text.format(write(secret)[length:]))

        assert shown == text.format(HIDDEN)


def test_the_middle_of_a_secret_is_hidden_between_two_cuts() -> None:
    assert Redactor(["0123456789abcdef"])("see ...456789...") == f"see ...{HIDDEN}..."
    assert Redactor(["0123456789abcdef"])("see ...456...") == "see ...456..."


def test_only_the_very_end_of_a_secret_is_hidden_behind_a_cut() -> None:
    shown = Redactor(["correct-horse"])

    assert shown("...the horse, the rest-hors") == f"...the {HIDDEN}, the rest-hors"
    assert shown("the horse... is correct") == "the horse... is correct"


@pytest.mark.parametrize(
    ("secrets", "text", "expected"),
    [
        (["abcdef", "defghi"], "abcdefghi", HIDDEN),
        (["abcdef", "bcd"], "abcdef bcdx", f"{HIDDEN} {HIDDEN}x"),
        (["abcabc"], "abcabcabc", HIDDEN),
        (["abcdef", "defghi"], "abcdefghi abc", f"{HIDDEN} abc"),
    ],
)
def test_secrets_that_overlap_are_hidden_as_one(
    secrets: list[str], text: str, expected: str
) -> None:
    assert Redactor(secrets)(text) == expected


PEM = "-----BEGIN KEY-----\n" + "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"] * 40)


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (PEM, "-" * 300_000 + "..."),
        ("ghp_ghp_ghp_0123456789abcdef", "ghp_" * 100_000 + "..."),
        ("ab" * 500 + "c", "ab" * 50_000),
        ("a\n+\n+\nb", "a" + "+" * 60_000),
        ("+\n+\nx", "+" * 60_000),
        ("é" * 2_000, "é" * 60_000),
        ("...0123...0123", "...0123" * 100_000),
    ],
    ids=["dashes", "prefixes", "pairs", "breaks", "spaces", "characters", "cuts"],
)
def test_of_a_text_that_resembles_a_secret_all_over_the_rest_is_hidden(
    secret: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The square of its length, or more, would take minutes.
    monkeypatch.setattr(redaction, "STEPS", 10_000)
    shown = Redactor([secret])(text)

    assert shown.endswith(HIDDEN)
    assert text.startswith(shown[: shown.index(HIDDEN)])


@pytest.mark.parametrize("end", ["'...", '"...', "&#x27;...", " [...]", "'…", ")..."])
def test_a_secret_that_was_cut_inside_quotes_is_hidden(end: str) -> None:
    shown = Redactor(["hunter2hunter2"])(f"it was 'hunter2{end}")

    assert shown == f"it was '{HIDDEN}{end}"


def test_a_secret_of_several_lines_is_hidden_when_cut_anywhere() -> None:
    secret = "first line\n    second line"
    redact = Redactor([secret])
    written = secret.replace("\n", "\r\n    "), repr(secret), json.dumps(secret), quote(secret)
    for whole in written:
        for cut in range(SHORTEST_CUT + 1, len(whole) - 1):
            assert redact(shorten(whole, cut)).strip("\"'") == f"{HIDDEN}..."


def test_a_value_in_an_error_message_is_cut_without_half_a_secret() -> None:
    redact = Redactor(["a long secret"])

    for length in range(80, 120):
        shown = redact(describe("x" * length + "a long secret"))
        assert "a lo" not in shown
        assert shown.endswith(" (str)")


def test_a_text_that_is_not_cut_keeps_what_only_begins_like_a_secret() -> None:
    assert Redactor(["password123"])("the password... is passw") == f"the {HIDDEN}... is passw"
    assert Redactor(["password123"])("the pass is password12") == "the pass is password12"


@examples
@given(secrets=st.lists(SECRETS, min_size=2, max_size=8), glue=st.sampled_from([" ", "\n", "..."]))
def test_many_secrets_are_found_beside_each_other(secrets: list[str], glue: str) -> None:
    shown = Redactor(secrets)(glue.join(secrets)).replace(HIDDEN, "\0")

    assert not [secret for secret in secrets if secret.strip() in shown]


def test_the_longest_secret_is_redacted_first() -> None:
    assert Redactor(["abc", "abcdef", ""])("abcdef abc") == f"{HIDDEN} {HIDDEN}"


def test_without_secrets_a_text_stays_as_it_is() -> None:
    assert Redactor()("anything...") == "anything..."


@examples
@given(text=TEXTS, secret=SECRETS)
def test_nothing_else_is_redacted(text: str, secret: str) -> None:
    assume(HIDDEN not in text)
    redact = Redactor([secret.strip() + "!", "never-in-it-7f3a"])
    assume(secret.strip() not in text)

    if "\n" not in secret and not set("+%&\\") & set(text):
        assert redact(text) == text
