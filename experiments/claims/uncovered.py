"""Numbers with a unit that a document publishes, and that no claim computes. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.claims.claim_file import ClaimFile
from experiments.claims.passages import occurrences

UNIT = r"%|µs|ms|s|min|minutes|seconds|KB|MB|GB|reactions/s|per second"
_QUANTITY = re.compile(rf"(?<![\w.,/-])(\d[\d.,]*\d|\d)[ \u00a0\n]?({UNIT})(?![\w/])")
_HEADING = re.compile(r"^(#+) +(.+?) *$", re.MULTILINE)
# Code is executed by other tests, or shows the output of a program; addresses and comments are not text.
_NOT_TEXT = re.compile(r"^```.*?^```$|`[^`\n]*`|\]\([^)]*\)|<[^>]*>", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Uncovered:
    """A number and its unit, as `500 ms`, and where it stands."""

    file: str
    line: int
    quantity: str


def uncovered(known: ClaimFile, file: str, text: str) -> list[Uncovered]:
    """Return the quantities in `text` that are in no claim, no constant and no section without rows."""
    constants = {number for of_file in known.constants if of_file.file == file for number in of_file.numbers}
    shown = _blanked(text, (match.span() for match in _NOT_TEXT.finditer(text)))
    shown = _blanked(shown, (_section(text, part.heading) for part in known.without_rows if part.file == file))
    claimed = (
        (place.start, place.end)
        for claim in known.claims
        if claim.file == file
        for numbers in occurrences(claim, text)
        for place in numbers
    )
    shown = _blanked(shown, claimed)
    found = []
    for match in _QUANTITY.finditer(shown):
        quantity = f"{match.group(1)} {match.group(2)}"
        if quantity not in constants:
            found.append(Uncovered(file, text.count("\n", 0, match.start()) + 1, quantity))
    return found


def _section(text: str, heading: str) -> tuple[int, int]:
    """Return where the section below a heading begins and ends; nowhere if there is no such heading."""
    headings = list(_HEADING.finditer(text))
    for number, match in enumerate(headings):
        if match.group(2) == heading:
            level = len(match.group(1))
            ends = (later.start() for later in headings[number + 1 :] if len(later.group(1)) <= level)
            return match.start(), next(ends, len(text))
    return 0, 0


def _blanked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Return `text` with spaces in place of the spans; lines stay where they are."""
    for start, end in spans:
        text = text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]
    return text
