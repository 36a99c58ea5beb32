"""Finds secrets in texts, however the texts write them."""

from __future__ import annotations

import re
from base64 import b64encode
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TypeVar

from ..text import CUT

HIDDEN = "*** HIDDEN ***"
SHORTEST = 3
"""Length of the shortest secret that is redacted in texts: a shorter one would match everywhere."""
SHORTEST_BASE64 = 6
"""The fewest characters of base64 that are recognized."""
SHORTEST_CUT = 4
"""The fewest characters of a secret that are recognized beside the mark of a cut."""
BEHIND_CUT = 16
"""How many characters behind the mark of a cut the rest of a secret is searched for."""
STEPS = 200_000
"""How many characters are compared in a text, at most; what is behind them is hidden. A text that
resembles secrets all over must not hold up the log for more than a second."""
LONGEST_ESCAPE = 7
"""In characters, of one that writes a part of a line break."""

_T = TypeVar("_T")
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-~")
"""What no encoding writes differently."""
# Not compiled here: many daemons have no secrets.
_SPACES = r"\t-\r\x1c-\x1f\x85\u2028\u2029"
_BREAK = rf"[ {_SPACES}]*[{_SPACES}][ {_SPACES}]*| {{2,}}"
_PIECE = rf"{_BREAK}|\\+|(?s:.)"
_ASCII_SPACE = "(?:0[9a-dA-D]|1[c-fC-F]|20)"
_PART_OF_BREAK = (
    rf"[ {_SPACES}]+|\+|%(?:{_ASCII_SPACE}|[cC]2%85|[eE]2%80%[aA][89])|\\(?:[fnrtv]|"
    rf"x(?:{_ASCII_SPACE}|85|c2\\x85|e2\\x80\\xa[89])|u00(?:{_ASCII_SPACE}|85)|u202[89])|"
    r"&#(?:9|1[0-3]|2[89]|3[0-2]|133|823[23]);"
    # The margin of an exception in a group.
    r"|(?<=  )\| "
)
"""A line break, and the indentation around it, may be any of these in any number: it differs with
where the text is."""
_PART_OF_ESCAPE = r"\\[xu]?\w{0,3}|%\w?|"
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
_CUT = rf"(?:{re.escape(CUT)}|\u2026)"
_MARK = rf"(?:['\"\]\)]|&(?:#x27|#39|quot);| ?\[)?{_CUT}"
"""Where a text was cut, perhaps after a quotation mark."""
_LINE_END = r"(?:\r?\n|(?:\\r)?\\n)[ \t]*"
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


class _Form:
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
        between = f"(?:{_LINE_END})?" if self.is_base64 else ""
        following = "".join(between + _any_of(piece) for piece in others[:with_break])
        for character in {text[0] for text in begin}:
            tails = _any_of(text[1:] for text in begin if text[0] == character)
            yield character, tails + following


def _any_of(spellings: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(re.escape, spellings))})"


def _forms(secret: str) -> Iterator[_Form]:
    text = secret.strip()
    if len(text) < SHORTEST:
        return
    pieces = re.findall(_PIECE, text)
    yield _Form(() if re.fullmatch(_BREAK, piece) else _spellings(piece) for piece in pieces)
    # The alphabets of base64 differ in two characters.
    others = {"+": "-", "/": "_"}
    for inner, end in sorted({*_base64(secret), *_base64(text)}):
        yield _Form([_spellings(c, *others.get(c, "")) for c in inner], end)


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


class _OutOfStepsError(Exception):
    """The text resembles secrets in too many places."""


class _Comparison:
    """Compares a text with forms, in a bounded number of steps.

    By hand, since one regular expression for a long secret takes too long to compile, and may
    take the square of a text's length.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._steps = STEPS
        self._marks: list[int] = []
        if _has_cut(text):
            self._marks = [found.start() for found in re.finditer(f"(?={_MARK})", text)]

    def behind_cuts(self) -> list[int]:
        """Where the rest of a secret that was cut may begin."""
        ends = [found.end() for found in re.finditer(f"{_CUT}+", self._text)]
        found = {end + more for end in ends for more in range(BEHIND_CUT)}
        return sorted(place for place in found if place < len(self._text))

    def end(self, begin: int, form: _Form, number: int = 0) -> int:
        """Where a form ends that begins there, with this piece of it: at its end, or at the mark of
        a cut; -1 if it isn't there."""
        text, places, cut = self._text, [begin], -1
        for done in range(len(form.pieces) - number):
            piece = form.pieces[number + done]
            if form.is_base64 and done:
                places = self._behind_line_ends(places)
            self._count(len(places))
            if len(piece) == len(places) == 1:
                # Nearly always: this is quicker.
                after = [places[0] + len(piece[0])] if text.startswith(piece[0], places[0]) else []
            else:
                after = list(self._behind(piece, places))
            if self._marks and done >= form.shortest_cut:
                cut = max(cut, self._mark(piece, places if piece else [*places, *after]))
            if not after:
                return cut
            places = after
        found = re.compile(form.end).match(text, max(places)) if form.end else None
        return found.end() if found else max(places)

    def _behind(self, piece: tuple[str, ...], places: list[int]) -> set[int]:
        """The ends of a piece that begins at one of the places."""
        if not piece:
            return {end for place in places for end in self._parts_of_break(place)}
        return {
            place + len(spelling)
            for place in places
            if self._text.startswith(piece, place)
            for spelling in piece
            if self._text.startswith(spelling, place)
        }

    def _parts_of_break(self, place: int) -> Iterator[int]:
        pattern = re.compile(_PART_OF_BREAK)
        while part := pattern.match(self._text, place):
            self._count(1)
            place = part.end()
            yield place

    def _behind_line_ends(self, places: list[int]) -> list[int]:
        """The places, and those behind a line end there."""
        found = [re.compile(_LINE_END).match(self._text, place) for place in places]
        return [*places, *(end.end() for end in found if end)]

    def _mark(self, piece: tuple[str, ...], places: list[int]) -> int:
        """Where a cut's mark is that has left none or a part of a piece, or -1."""
        longest = max(map(len, piece), default=LONGEST_ESCAPE)
        found = -1
        for place in places:
            index = bisect_left(self._marks, place)
            if index < len(self._marks) and (mark := self._marks[index]) - place < longest:
                part = self._text[place:mark]
                if any(spelling.startswith(part) for spelling in piece) or (
                    not piece and re.fullmatch(_PART_OF_ESCAPE, part)
                ):
                    found = max(found, mark)
        return found

    def _count(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise _OutOfStepsError


def _has_cut(text: str) -> bool:
    """Whether a text has the mark of a cut in it."""
    return CUT in text or "\u2026" in text


class Redactor:
    """Replaces every one of `secrets` in a text.

    They are found as they are, and as `repr`, JSON, HTML, URLs and base64 write them; with other
    line breaks and indentation; and where a text was cut, beside CUT.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self.secrets = frozenset(map(str, secrets))

    def __call__(self, text: str) -> str:
        beginning = self._beginning
        if beginning is None or not (beginning.search(text) or _has_cut(text)):
            return text
        shown, position = [], 0
        for begin, end in sorted(self._spans(text, beginning)):
            if begin >= position:
                shown += [text[position:begin], HIDDEN]
            position = max(position, end)
        return "".join([*shown, text[position:]])

    def _spans(self, text: str, beginning: re.Pattern[str]) -> Iterator[tuple[int, int]]:
        """Where secrets begin and end, in any order; they may overlap."""
        compared, begin = _Comparison(text), 0
        try:
            while found := beginning.search(text, begin):
                begin = found.start()
                for form in _found(self._by_keys, text, begin):
                    if (end := compared.end(begin, form)) > begin:
                        yield begin, end
                begin += 1
            for begin in compared.behind_cuts():
                for form, number in _found(self._tails, text, begin):
                    if (end := compared.end(begin, form, number)) > begin:
                        yield begin, end
        except _OutOfStepsError:
            yield begin, len(text)

    @cached_property
    def _forms(self) -> list[_Form]:
        return [form for secret in sorted(self.secrets) for form in _forms(secret)]

    @cached_property
    def _beginning(self) -> re.Pattern[str] | None:
        """One pattern for how all forms begin, grouped by first characters: `re` finds these
        quickly."""
        groups: dict[str, dict[str, None]] = {}
        for form in self._forms:
            for character, others in form.beginnings():
                groups.setdefault(character, {})[others] = None
        patterns = [f"{re.escape(first)}(?:{'|'.join(others)})" for first, others in groups.items()]
        return re.compile("|".join(patterns)) if patterns else None

    @cached_property
    def _by_keys(self) -> dict[str, list[_Form]]:
        return _by_keys((form.keys(), form) for form in self._forms)

    @cached_property
    def _tails(self) -> dict[str, list[tuple[_Form, int]]]:
        """The ends of forms that a cut may have left."""
        return _by_keys(
            (form.keys(number), (form, number))
            for form in self._forms
            for number in range(1, len(form.pieces) - form.shortest_cut + 1)
        )


def _by_keys(items: Iterable[tuple[set[str], _T]]) -> dict[str, list[_T]]:
    found: dict[str, list[_T]] = {}
    for keys, item in items:
        for key in sorted(keys):
            found.setdefault(key, []).append(item)
    return found


def _found(items: dict[str, list[_T]], text: str, place: int) -> Iterator[_T]:
    """The items whose key is at this place in a text."""
    for length in (1, 2):
        yield from items.get(text[place : place + length], ())
