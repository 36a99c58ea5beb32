"""Replaces the secrets in texts, however the texts write them."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TypeVar

from ..text import CUT
from .spellings import LINE_END, LONGEST_ESCAPE, PART_OF_BREAK, PART_OF_ESCAPE, Form, forms

HIDDEN = "*** HIDDEN ***"
BEHIND_CUT = 16
"""How many characters behind the mark of a cut the rest of a secret is searched for."""
STEPS = 200_000
"""How many characters are compared in a text, at most; what is behind them is hidden. A text that
resembles secrets all over must not hold up the log for more than a second."""
_T = TypeVar("_T")
_CUT = rf"(?:{re.escape(CUT)}|\u2026)"
_MARK = rf"(?:['\"\]\)]|&(?:#x27|#39|quot);| ?\[)?{_CUT}"
"""Where a text was cut, perhaps after a quotation mark."""


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
        if not self._marks:
            return []
        ends = [found.end() for found in re.finditer(f"{_CUT}+", self._text)]
        found = {end + more for end in ends for more in range(BEHIND_CUT)}
        return sorted(place for place in found if place < len(self._text))

    def end(self, begin: int, form: Form, number: int = 0) -> int:
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
        pattern = re.compile(PART_OF_BREAK)
        while part := pattern.match(self._text, place):
            self._count(1)
            place = part.end()
            yield place

    def _behind_line_ends(self, places: list[int]) -> list[int]:
        """The places, and those behind a line end there."""
        found = [re.compile(LINE_END).match(self._text, place) for place in places]
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
                    not piece and re.fullmatch(PART_OF_ESCAPE, part)
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
                for form in _at(self._by_keys, text, begin):
                    if (end := compared.end(begin, form)) > begin:
                        yield begin, end
                begin += 1
            for begin in compared.behind_cuts():
                for form, number in _at(self._tails, text, begin):
                    if (end := compared.end(begin, form, number)) > begin:
                        yield begin, end
        except _OutOfStepsError:
            yield begin, len(text)

    @cached_property
    def _forms(self) -> list[Form]:
        return [form for secret in sorted(self.secrets) for form in forms(secret)]

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
    def _by_keys(self) -> dict[str, list[Form]]:
        return _grouped((form.keys(), form) for form in self._forms)

    @cached_property
    def _tails(self) -> dict[str, list[tuple[Form, int]]]:
        """The ends of forms that a cut may have left."""
        return _grouped(
            (form.keys(number), (form, number))
            for form in self._forms
            for number in range(1, len(form.pieces) - form.shortest_cut + 1)
        )


def _grouped(items: Iterable[tuple[set[str], _T]]) -> dict[str, list[_T]]:
    found: dict[str, list[_T]] = {}
    for keys, item in items:
        for key in sorted(keys):
            found.setdefault(key, []).append(item)
    return found


def _at(items: dict[str, list[_T]], text: str, place: int) -> Iterator[_T]:
    """The items whose key is at this place in a text."""
    for length in (1, 2):
        yield from items.get(text[place : place + length], ())
