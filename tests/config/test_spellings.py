from __future__ import annotations

import html
import json
import re
import textwrap
from base64 import b64encode, encodebytes, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import markupsafe
import pytest
from hypothesis import given

from daemonkit.cli.systemd import quote as unit_quote
from daemonkit.config.redaction import HIDDEN, Redactor

from .texts import SECRETS, TEXTS, Write, examples, in_bytes

FORMS: dict[str, Write] = {
    "as it is": str,
    "repr": repr,
    "ascii": ascii,
    "repr of bytes": in_bytes,
    "repr of latin-1 bytes": lambda text: repr(text.encode("latin-1", "replace")),
    "JSON": json.dumps,
    "JSON in UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "JSON in HTML": lambda text: re.sub(
        "[<>&']", lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text)
    ),
    "JSON with escaped slashes": lambda text: json.dumps(text).replace("/", "\\/"),
    "percent": quote,
    "percent, slashes too": lambda text: quote(text, safe=""),
    "percent in lower case": lambda text: re.sub(
        "%..", lambda found: found[0].lower(), quote(text, safe="")
    ),
    "percent with plus": quote_plus,
    "HTML": html.escape,
    "HTML without quotes": lambda text: html.escape(text, quote=False),
    "HTML of markupsafe": lambda text: str(markupsafe.escape(text)),
    "HTML in ASCII": lambda text: html.escape(text).encode("ascii", "xmlcharrefreplace").decode(),
    "CRLF": lambda text: re.sub("\r?\n", "\r\n", text),
    "indented": lambda text: textwrap.indent(text, "    "),
    "indented by tabs": lambda text: textwrap.indent(text, "\t", lambda line: True),
    "on one line": lambda text: re.sub("[ \t\r\n]+", " ", text).strip(),
    "a word of a unit file": unit_quote,
}
BASE64 = {"base64": b64encode, "base64 for URLs": urlsafe_b64encode}


def is_left(secret: str, write: Write, text: str) -> bool:
    """Whether a text has the secret in it, written alone."""
    written = write(secret.strip())
    # The quotation marks, and a line's indentation, are not the secret's.
    return written.strip() in text or written.strip("b'\"") in text


@pytest.mark.parametrize("name", FORMS)
@examples
@given(secret=SECRETS, before=TEXTS, after=TEXTS)
def test_no_form_of_a_secret_is_left(name: str, secret: str, before: str, after: str) -> None:
    write = FORMS[name]
    if "latin-1" in name:
        secret = secret.encode("latin-1", "replace").decode("latin-1")
    text = write(before + secret + after)
    shown = Redactor([secret])(text)

    assert HIDDEN in shown
    assert secret.strip() not in shown.replace(HIDDEN, "\0")
    assert not is_left(secret, write, shown.replace(HIDDEN, "\0"))


@pytest.mark.parametrize("name", BASE64)
@examples
@given(
    secret=SECRETS.filter(lambda text: len(text.strip().encode()) >= 6),
    before=TEXTS,
    after=TEXTS,
)
def test_no_secret_is_left_in_base64(name: str, secret: str, before: str, after: str) -> None:
    text = BASE64[name]((before + secret + after).encode()).decode()
    shown = Redactor([secret])(text)
    kept = max(map(len, shown.split(HIDDEN)))

    assert HIDDEN in shown
    # Besides what surrounds it, at most one character on either side, with some bits of the secret.
    assert kept <= max(len(b64encode(part.encode())) for part in (before, after)) + 2


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_basic_auth_is_recognized_whatever_the_user_s_name(user: str, encoding: str) -> None:
    header = b64encode(f"{user}:hünter2!".encode(encoding)).decode()
    shown = Redactor(["hünter2!"])(f"Authorization: Basic {header}, next")

    assert re.fullmatch(r"Authorization: Basic \w{0,7}\*\*\* HIDDEN \*\*\*, next", shown)


def test_a_long_secret_is_found_in_base64() -> None:
    key = "-----BEGIN KEY-----\n" + "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC"] * 40)
    text = b64encode(f"user:{key}".encode()).decode()

    assert Redactor([key])(f"{text}, next") == f"dXNlcjo{HIDDEN}, next"


@pytest.mark.parametrize("length", [20, 60, 121, 300])
@pytest.mark.parametrize("before", range(40, 76, 5))
def test_a_secret_is_found_in_base64_with_line_ends(length: int, before: int) -> None:
    secret = "".join(chr(33 + (7 * n) % 90) for n in range(length))
    text = encodebytes(b"q" * before + secret.encode() + b"end").decode()
    for written in (text, text.replace("\n", "\r\n"), repr(text), text.replace("\n", "\n    ")):
        shown = Redactor([secret])(written + "The next line stays.")

        assert shown.endswith("The next line stays.")
        left = re.sub(r"\\n|\W", "", shown.replace(HIDDEN, "").removesuffix("The next line stays."))
        assert len(left) <= len(b64encode(b"q" * before + b"end")) + 4


@pytest.mark.parametrize("margin", ["  | ", "    | ", "      | "])
@pytest.mark.parametrize("line_end", ["\n", "\\n", "%0A"])
def test_a_secret_of_several_lines_is_hidden_in_an_exception_group(
    margin: str, line_end: str
) -> None:
    text = f"ValueError: first{line_end}{margin}{line_end}{margin}second"

    assert Redactor(["first\n\nsecond"])(text) == f"ValueError: {HIDDEN}"


@pytest.mark.parametrize("secret", ["ab", "a ", " a\n", "", "   "])
def test_a_secret_too_short_for_texts_is_not_searched(secret: str) -> None:
    assert Redactor([secret])("a banana, ab   ") == "a banana, ab   "


def test_a_secret_of_many_backslashes_takes_no_time() -> None:
    secret = "\\" * 60 + "a" + "\\" * 60
    redact = Redactor([secret])

    assert redact(f"x{secret!r}") == f"x'{HIDDEN}'"
    assert redact("\\" * 5_000) == "\\" * 5_000
