"""How a secret may be written in a text."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache

SHORTEST = 3
"""Length of the shortest secret that is redacted in texts: a shorter one would match everywhere."""
SHORTEST_BASE64 = 6
"""The fewest characters of base64 that are recognized."""
SHORTEST_CUT = 4
"""The fewest characters of a secret that are recognized beside the mark of a cut."""
LONGEST_ESCAPE = 7
"""In characters, of one that writes a part of a line break."""
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
"""What no encoding writes differently."""
# Not compiled here: many daemons have no secrets.
_SPACES = r"\t-\r\x1c-\x1f\x85\u2028\u2029"
_BREAK = rf"[ {_SPACES}]*[{_SPACES}][ {_SPACES}]*| {{2,}}"
_PIECE = rf"{_BREAK}|\\+|(?s:.)"
_ASCII_SPACE = "(?:0[9a-dA-D]|1[c-fC-F]|20)"
PART_OF_BREAK = (
    rf"[ {_SPACES}]+|\+|%(?:{_ASCII_SPACE}|[cC]2%85|[eE]2%80%[aA][89])|\\(?:[fnrtv]|"
    rf"x(?:{_ASCII_SPACE}|85|c2\\x85|e2\\x80\\xa[89])|u00(?:{_ASCII_SPACE}|85)|u202[89])|"
    r"&#(?:9|1[0-3]|2[89]|3[0-2]|133|823[23]);"
    # The margin of an exception in a group.
    r"|(?<=  )\| "
)
"""A line break, and the indentation around it, may be any of these in any number: it differs with
where the text is."""
PART_OF_ESCAPE = r"\\[xu]?\w{0,3}|%\w?|"
"""What a cut may have left of one, perhaps nothing."""
_OWN_SPELLINGS = {
    "'": ("\\'",),
    '"': ('\\"', "&quot;"),
    "&": ("&amp;",),
    "<": ("&lt;",),
    ">": ("&gt;",),
    "/": ("\\/",),
    " ": ("+",),
    "\t": ("\\t",),
    "\b": ("\\b",),
    # In a unit file of systemd.
    "%": ("%%",),
    "$": ("$$",),
}
LINE_END = r"(?:\r?\n|(?:\\r)?\\n)[ \t]*"
"""What may be between any two characters of base64: MIME has a line end after every 76."""
_END_OF_BASE64 = ("={0,2}", "[A-Za-z0-9+/_-]?={0,2}")
"""What may follow and belong to it, without and with some bits of the secret."""


@lru_cache(1024)
def _spellings(piece: str, *others: str) -> tuple[str, ...]:
    """How a character, or a run of backslashes, may be written: plainly, by `repr` of text and
    bytes, in JSON, in a URL or in HTML."""
    if piece in _PLAIN:
        return (piece, *others)
    found = {piece, *_OWN_SPELLINGS.get(piece, ())}
    if piece[0] == "\\":
        found.add(2 * piece)
    for encoding, errors in (
        ("utf-8", "surrogatepass"),
        ("utf-8", "surrogateescape"),
        ("latin-1", "strict"),
    ):
        with suppress(UnicodeEncodeError):
            data = piece.encode(encoding, errors)
            found |= _escapes("%{:02x}", data) | _escapes("\\x{:02x}", data)
    units = memoryview(piece.encode("utf-16", "surrogatepass")[2:]).cast("H")
    points = list(map(ord, piece))
    found |= _escapes("\\u{:04x}", units) | _escapes("\\U{:08x}", points)
    found |= {*_escapes("&#x{:x};", points), *_escapes("&#{};", points), *others}
    # The longest first, since one may begin with another.
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _escapes(form: str, numbers: Iterable[int]) -> set[str]:
    numbers = list(numbers)
    upper = form.replace("x}", "X}")
    return {"".join(map(form.format, numbers)), "".join(map(upper.format, numbers))}


class Form:
    """A secret as it may stand in a text: as a sequence of pieces, each with its spellings.

    A piece without spellings is a line break. end: a pattern for what follows the pieces and
    belongs to them, of base64 only.
    """

    def __init__(self, pieces: Iterable[tuple[str, ...]], end: str = "") -> None:
        self.pieces, self.end, self.is_base64 = [*pieces], end, bool(end)
        self.shortest_cut = SHORTEST_BASE64 if end else SHORTEST_CUT

    def keys(self, number: int = 0) -> set[str]:
        """The first two characters from a piece on, or only one before a line break."""
        following = {text[0] for piece in self.pieces[number + 1 : number + 2] for text in piece}
        return {
            text[:2] if len(text) > 1 else text + more
            for text in self.pieces[number]
            for more in following or {""}
        }

    def beginnings(self) -> Iterator[tuple[str, str]]:
        """The characters that it may begin with, each with a pattern for what follows it."""
        begin, *others = (piece for piece in self.pieces[:SHORTEST])
        with_break = others.index(()) if () in others else SHORTEST
        between = f"(?:{LINE_END})?" if self.is_base64 else ""
        following = "".join(between + _any_of(piece) for piece in others[:with_break])
        for character in {text[0] for text in begin}:
            tails = _any_of(text[1:] for text in begin if text[0] == character)
            yield character, tails + following


def _any_of(spellings: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, spellings))})"


def forms(secret: str) -> Iterator[Form]:
    text = secret.strip()
    if len(text) < SHORTEST:
        return
    pieces = re.findall(_PIECE, text)
    yield Form(() if re.fullmatch(_BREAK, piece) else _spellings(piece) for piece in pieces)
    # The alphabets of base64 differ in two characters.
    others = {"+": "-", "/": "_"}
    for inner, end in sorted({*_base64(secret), *_base64(text)}):
        yield Form([_spellings(c, *others.get(c, "")) for c in inner], end)


def _base64(secret: str) -> Iterator[tuple[str, str]]:
    """What of a longer text's base64 depends on the secret in it alone, and a pattern for the end
    of it."""
    for encoding, errors in (("utf-8", "surrogateescape"), ("latin-1", "strict")):
        with suppress(UnicodeEncodeError):
            data = secret.encode(encoding, errors)
            for before in range(3):
                first, bits = (0, 2, 3)[before], 8 * (before + len(data))
                inner = b64encode(bytes(before) + data).decode()[first : bits // 6]
                if len(inner) >= SHORTEST_BASE64:
                    yield inner, _END_OF_BASE64[bits % 6 > 0]
