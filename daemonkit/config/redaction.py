"""Finds secrets in texts, however the texts write them."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache

from ..text import CUT

HIDDEN = "*** HIDDEN ***"
SHORTEST = 3
"""Length of the shortest secret that is redacted in texts: a shorter one would match everywhere."""
SHORTEST_BASE64 = 6
"""The fewest characters of base64 that are recognized."""
LONGEST_BASE64 = 64
"""The most characters of base64 that are compared; more of it is redacted with them."""
SHORTEST_CUT = 4
"""The fewest characters of a secret that are recognized before the mark of a cut."""

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
"""What no encoding writes differently."""
# Not compiled here: many daemons have no secrets.
_SPACES = r"\t-\r\x1c-\x1f\x85\u2028\u2029"
_BREAK = rf"[ {_SPACES}]*[{_SPACES}][ {_SPACES}]*| {{2,}}"
_PIECE = rf"{_BREAK}|\\+|(?s:.)"
_ASCII_SPACE = "(?:0[9a-dA-D]|1[c-fC-F]|20)"
_ANY_BREAK = (
    rf"(?:[ {_SPACES}+]|%(?:{_ASCII_SPACE}|[cC]2%85|[eE]2%80%[aA][89])|\\(?:[fnrtv]|"
    rf"x(?:{_ASCII_SPACE}|85|c2\\x85|e2\\x80\\xa[89])|u00(?:{_ASCII_SPACE}|85)|u202[89])|"
    r"&#(?:9|1[0-3]|2[89]|3[0-2]|133|823[23]);)+"
)
"""A line break and the indentation around it, which differ with where the text is."""
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
_MARK = rf"(?:['\"\]\)]|&(?:#x27|#39|quot);| ?\[)?(?:{re.escape(CUT)}|\u2026)"
"""Where a text was cut, perhaps after a quotation mark."""
_LINE_END = r"(?:(?:\r?\n|(?:\\r)?\\n)[ \t]*)?"
"""What may be between any two characters of base64: MIME has a line end after every 76."""
_PART_OF_BREAK = rf"(?:{_ANY_BREAK})?(?:\\[xu]?\w{{0,3}}|%\w?)?"


@lru_cache(1024)
def _spellings(piece: str) -> frozenset[str]:
    """How a character, or a run of backslashes, may be written: plainly, by `repr` of text and
    bytes, in JSON, in a URL or in HTML."""
    if piece in _PLAIN:
        return frozenset((piece,))
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
    return frozenset(found | _escapes("&#x{:x};", points) | _escapes("&#{};", points))


def _escapes(form: str, numbers: Iterable[int]) -> set[str]:
    numbers = list(numbers)
    upper = form.replace("x}", "X}")
    return {"".join(map(form.format, numbers)), "".join(map(upper.format, numbers))}


class _Form:
    """A secret as it may stand in a text: as a sequence of pieces, each with its spellings.

    rest: a pattern for what may follow the pieces and belongs to them; joint: one for what may be
    between them.
    """

    def __init__(
        self, pieces: list[frozenset[str] | None], rest: str, shortest_cut: int, joint: str = ""
    ) -> None:
        self.pieces, self.shortest_cut = pieces, shortest_cut
        self._rest, self._joint = rest, joint

    def patterns(self, number: int | None = None) -> list[str]:
        """The patterns of the first pieces, or of all, with what may be before each."""
        pieces = self.pieces[:number]
        plain = [_ANY_BREAK if piece is None else _any_of(piece) for piece in pieces]
        return [plain[0], *(self._joint + pattern for pattern in plain[1:])]

    @cached_property
    def whole(self) -> re.Pattern[str]:
        return re.compile("".join(self.patterns()) + self._rest)

    @property
    def first_characters(self) -> set[str]:
        return {spelling[0] for spelling in self.pieces[0] or ()}

    def beginning(self, character: str) -> str:
        """The pattern of the first pieces, after a first character."""
        tails = {piece[1:] for piece in self.pieces[0] or () if piece[0] == character}
        return "".join([_any_of(tails), *self.patterns(SHORTEST)[1:]])


def _any_of(spellings: Iterable[str]) -> str:
    # The longest first, since one may begin with another.
    found = sorted(spellings, key=lambda text: (-len(text), text))
    return re.escape(found[0]) if len(found) == 1 else f"(?:{'|'.join(map(re.escape, found))})"


def _forms(secret: str) -> Iterator[_Form]:
    text = secret.strip()
    if len(text) < SHORTEST:
        return
    pieces = [
        None if re.fullmatch(_BREAK, piece) else _spellings(piece)
        for piece in re.findall(_PIECE, text)
    ]
    yield _Form(pieces, "", SHORTEST_CUT)
    # The longest first: without the spaces around it, the secret may be the beginning.
    found = {*_base64(secret), *_base64(text)}
    for inner, rest in sorted(found, key=lambda form: (-len(form[0]), form)):
        # The alphabets of base64 differ in two characters.
        others = {"+": {"-"}, "/": {"_"}}
        written = [_spellings(c) | others.get(c, set()) for c in inner]
        yield _Form([*written], rest, SHORTEST_BASE64, _LINE_END)


def _base64(secret: str) -> Iterator[tuple[str, str]]:
    """What of a longer text's base64 depends on the secret in it alone, and what follows it."""
    for encoding, errors in (("utf-8", "surrogateescape"), ("latin-1", "strict")):
        with suppress(UnicodeEncodeError):
            data = secret.encode(encoding, errors)
            for before in range(3):
                first, bits = (0, 2, 3)[before], 8 * (before + len(data))
                inner = b64encode(bytes(before) + data).decode()[first : bits // 6]
                if len(inner) < SHORTEST_BASE64:
                    continue
                more = max(0, len(inner) - LONGEST_BASE64) + bool(bits % 6)
                yield inner[:LONGEST_BASE64], f"(?:{_LINE_END}[A-Za-z0-9+/_-]){{0,{more}}}={{0,2}}"


def _begins(piece: frozenset[str] | None, text: str) -> bool:
    """Whether a piece may begin with this text, which may be empty."""
    if piece is None:
        return re.fullmatch(_PART_OF_BREAK, text) is not None
    return any(spelling.startswith(text) for spelling in piece)


class Redactor:
    """Replaces every one of `secrets` in a text.

    They are found as they are, and as `repr`, JSON, HTML, URLs and base64 write them; with other
    line breaks and indentation; and where a text was cut, if CUT follows.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(map(str, secrets))

    def __call__(self, text: str) -> str:
        if self._beginning is None:
            return text
        text = self._without_whole(text, self._beginning)
        return self._without_cut(text) if CUT in text or "\u2026" in text else text

    @cached_property
    def _forms(self) -> list[_Form]:
        # The longest first: a secret may begin with another one.
        longest_first = sorted(self.secrets, key=lambda secret: (-len(secret), secret))
        return [form for secret in longest_first for form in _forms(secret)]

    @cached_property
    def _by_first(self) -> dict[str, list[_Form]]:
        """The forms by the characters that they may begin with."""
        found: dict[str, list[_Form]] = {}
        for form in self._forms:
            for character in sorted(form.first_characters):
                found.setdefault(character, []).append(form)
        return found

    @cached_property
    def _beginning(self) -> re.Pattern[str] | None:
        """One pattern for how all forms begin, grouped by first characters: `re` finds these
        quickly. To compile all of the forms would take a hundred times as long."""
        groups = []
        for character, forms in self._by_first.items():
            tails = dict.fromkeys(form.beginning(character) for form in forms)
            groups.append(f"{re.escape(character)}(?:{'|'.join(tails)})")
        return re.compile("|".join(groups)) if groups else None

    def _without_whole(self, text: str, beginning: re.Pattern[str]) -> str:
        shown, position, begin = [], 0, 0
        while found := beginning.search(text, begin):
            begin = found.start()
            for form in self._by_first[text[begin]]:
                if whole := form.whole.match(text, begin):
                    shown += [text[position:begin], HIDDEN]
                    position = begin = whole.end()
                    break
            else:
                begin += 1
        return "".join([*shown, text[position:]])

    def _without_cut(self, text: str) -> str:
        """Replace the beginnings of secrets that a cut has left."""
        found: list[tuple[int, int]] = []
        for form in self._forms:
            patterns = form.patterns()
            for start in re.finditer("".join(patterns[: form.shortest_cut]), text):
                end = start.end()
                for piece, pattern in list(zip(form.pieces, patterns))[form.shortest_cut :]:  # noqa: B905
                    mark = re.compile(_MARK).search(text, end)
                    if mark and _begins(piece, text[end : mark.start()]):
                        found.append((start.start(), mark.start()))
                    if (whole := re.compile(pattern).match(text, end)) is None:
                        break
                    end = whole.end()
        shown, position = [], 0
        for begin, end in sorted(found, key=lambda span: (span[0], -span[1])):
            if begin >= position:
                shown += [text[position:begin], HIDDEN]
            position = max(position, end)
        return "".join([*shown, text[position:]])
