"""Where a claim's numbers stand in a document: found, compared with what the rows give, and written. No I/O."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.claims.claim_file import Claim
from experiments.report.format import DASH
from pipeline.errors import SettingError

NUMBER = r"[-+−]?\d(?:[\d.,]*\d)?|∞|" + DASH
"""A number as documents have it; a dash where nothing was measured yet."""
WORDS = r"[^|\n,;:()]+?"
"""Words that follow from the rows as numbers do, such as the name of a processor: `{cpu:s}`."""


@dataclass(frozen=True)
class Occurrence:
    """A number in a text: the characters from `start` to `end`, the line (from 1), and what they are."""

    name: str
    start: int
    end: int
    line: int
    text: str


def rendered(claim: Claim, row: Mapping[str, Any]) -> dict[str, str]:
    """Return each placeholder of the claim as the text should have it.

    Raises SettingError for a column that the query lacks, and one that its format does not fit.
    """
    values = {}
    for name, form in claim.fields:
        if name not in row:
            raise SettingError(f"claim {claim.id}: its query gives no column {name!r} (it gives {', '.join(row)})")
        value = row[name]
        if value is None or (isinstance(value, float) and math.isnan(value)):
            values[name] = DASH
        elif isinstance(value, float) and math.isinf(value):
            values[name] = "∞"
        else:
            try:
                values[name] = format(value, form)
            except (ValueError, TypeError) as error:
                raise SettingError(f"claim {claim.id}: {name} is {value!r}, which {form!r} does not fit") from error
    return values


def occurrences(claim: Claim, text: str, words: Mapping[str, str] | None = None) -> list[list[Occurrence]]:
    """Return the passages of the claim in `text`, each with its numbers in order.

    Placeholders that are words have to be `words`, or may be anything if that is None.
    """
    return [
        [
            Occurrence(
                name,
                match.start(number),
                match.end(number),
                text.count("\n", 0, match.start(number)) + 1,
                match.group(number),
            )
            for number, name in enumerate(claim.numbers, 1)
        ]
        for match in _pattern(claim, words).finditer(text)
    ]


def passage(claim: Claim, text: str, row: Mapping[str, str]) -> list[Occurrence]:
    """Return the numbers of the one passage that has the words of `row`. Raises SettingError if there is not one."""
    found = occurrences(claim, text, row)
    if len(found) != 1:
        words = ", ".join(row[name] for name, form in claim.fields if not form)
        where = "is not in" if not found else f"is {len(found)} times in"
        raise SettingError(
            f"claim {claim.id}: its text {where} {claim.file}{f' for {words}' if words else ''}: write it there as "
            f"{claim.text.strip()!r}"
        )
    return found[0]


def written(text: str, changes: Sequence[tuple[Occurrence, str]]) -> str:
    """Return `text` with each place replaced."""
    for place, value in sorted(changes, key=lambda change: -change[0].start):
        text = text[: place.start] + value + text[place.end :]
    return text


def _pattern(claim: Claim, words: Mapping[str, str] | None) -> re.Pattern[str]:
    pattern, rest = "", claim.text.strip()
    for name, form in claim.fields:
        literal, rest = re.split(r"(?<!\{)\{" + name + r"(?:![rsa])?(?::[^}]*)?\}", rest, maxsplit=1)
        pattern += _literal(literal)
        if form:
            pattern += f"({WORDS if form == 's' else NUMBER})"
        else:
            pattern += r"[^|\n]+?" if words is None else _literal(words[name])
    # A number ends where its digits end.
    return re.compile(rf"(?<![\w.,]){pattern}{_literal(rest)}(?![\d%])" if not rest else pattern + _literal(rest))


def _literal(text: str) -> str:
    text = text.replace("{{", "{").replace("}}", "}")
    return r"\s+".join(re.escape(part) for part in re.split(r"\s+", text))
