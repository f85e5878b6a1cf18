"""Compute every published number again, compare it with the documents, and write it into them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments import files
from experiments.claims import passages
from experiments.claims.age import Age, age
from experiments.claims.claim_file import Claim, ClaimFile, Source, read
from experiments.claims.passages import Occurrence
from experiments.claims.rows import Rows
from experiments.report.format import DASH
from experiments.report.pages import write_json
from pipeline.errors import EmoStreamError, SettingError, plain_reason

FILE = "reports/claims.yaml"
RESULT = "reports/bench/claims.json"


@dataclass(frozen=True)
class Number:
    """One published number: its claim and name, where it stands, what is there, and what the rows give."""

    claim: str
    name: str
    file: str
    line: int
    there: str
    again: str

    @property
    def differs(self) -> bool:
        """Whether the document says something else than the rows."""
        return self.there != self.again


@dataclass
class Outcome:
    """What `recompute` found: numbers, errors, and of each measured source its age and number of runs."""

    numbers: list[Number] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    ages: dict[str, Age] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unmeasured: int = 0

    @property
    def differing(self) -> list[Number]:
        """The numbers in which a document and the rows differ."""
        return [number for number in self.numbers if number.differs]

    @property
    def stale(self) -> list[Number]:
        """The numbers that were measured with other code than that of HEAD."""
        return [number for number in self.numbers if self.ages[self.sources[number.claim]].stale]

    @property
    def status(self) -> int:
        """The exit status: 0 if every number follows from its rows."""
        return 1 if self.errors or self.differing else 0

    def to_json(self) -> dict[str, Any]:
        """Return what claims.json holds. `claims` are numbers; `unmeasured` ones are a dash in the documents."""
        unknown = [name for name, known in self.ages.items() if known.changed is None]
        return {
            "claims": len(self.numbers) + self.unmeasured,
            "recomputed": len(self.numbers),
            "differing": len(self.differing),
            "stale": len(self.stale),
            "unmeasured": self.unmeasured,
            "errors": self.errors,
            "runs_analysed_again": self.runs,
            "measured_before": {name: known.words for name, known in self.ages.items() if known.stale},
            "age_unknown": unknown,
        }

    def lines(self) -> Iterator[str]:
        """Yield the table that a terminal shows, and what is wrong below it."""
        yield f"{'claim':<34} {'file':<22} numbers  differing  age"
        of_claim = Counter(number.claim for number in self.numbers)
        wrong = Counter(number.claim for number in self.differing)
        files_of = {number.claim: number.file for number in self.numbers}
        for claim, count in of_claim.items():
            words = self.ages[self.sources[claim]].words
            yield f"{claim:<34} {files_of[claim]:<22} {count:>7}  {wrong[claim]:>9}  {words}".rstrip()
        for number in self.differing:
            yield (
                f"{number.file}, line {number.line}: {number.there} differs from the rows, which give {number.again} "
                f"({number.claim}, {number.name})"
            )
        yield from self.errors
        yield (
            f"{len(self.numbers)} numbers computed again, {len(self.differing)} differ, {len(self.stale)} are older "
            f"than their code, {self.unmeasured} are not measured yet"
        )


def recompute(root: Path, *, write: bool = False) -> Outcome:
    """Compute every number of `reports/claims.yaml` below `root` again, and compare it with the documents.

    With `write` the documents get the numbers, and claims.yaml the hashes of what is measured now; nothing is written
    if there is an error. The outcome is written to reports/bench/claims.json. Raises SettingError for a claims.yaml
    that is wrong; what is wrong with single claims is in the outcome's `errors`.
    """
    known = read(root / FILE)
    outcome, texts, changes = Outcome(), _Texts(root), list[tuple[str, Occurrence, str]]()
    pins, claimed = {}, set[tuple[str, int]]()
    for name, source in known.sources.items():
        claims = [claim for claim in known.claims if claim.source == name]
        outcome.sources |= {claim.id: name for claim in claims}
        rows = Rows(name, source, root, pinned=not write)
        try:
            if rows.missing:
                _expect_dashes(source, claims, texts, outcome)
                continue
            with rows:
                outcome.ages[name] = age(root, rows.commits(), source.code)
                outcome.runs |= {name: runs} if (runs := rows.check()) else {}
                pins[name] = rows.sha256()
                for claim in claims:
                    try:
                        found = _compare(claim, rows, texts, outcome)
                    except EmoStreamError as error:
                        outcome.errors.append(str(error))
                        continue
                    changes += found
                    claimed |= {(file, place.start) for file, place, _ in found}
        except EmoStreamError as error:
            outcome.errors.append(str(error))
    if not outcome.errors:
        outcome.errors += _beside_the_rows(known, outcome, texts, claimed)
    if write and not outcome.errors:
        _write(root, known, pins, texts, changes)
        return recompute(root)
    write_json(root / RESULT, outcome.to_json())
    return outcome


def _compare(claim: Claim, rows: Rows, texts: _Texts, outcome: Outcome) -> list[tuple[str, Occurrence, str]]:
    """Add the numbers of a claim to the outcome; return every place with its value."""
    changes = []
    for row in rows.query(claim.query):
        values = passages.rendered(claim, row)
        for place in passages.passage(claim, texts[claim.file], values):
            again = values[place.name]
            outcome.numbers.append(Number(claim.id, place.name, claim.file, place.line, place.text, again))
            changes.append((claim.file, place, again))
    return changes


def _expect_dashes(source: Source, claims: list[Claim], texts: _Texts, outcome: Outcome) -> None:
    """Count the numbers of a source that was not measured yet. Raises SettingError for one that is published."""
    for claim in claims:
        found = passages.occurrences(claim, texts[claim.file])
        if not found:
            raise SettingError(f"claim {claim.id}: its text is not in {claim.file}: write it with a {DASH} per number")
        for place in (place for numbers in found for place in numbers):
            if place.text != DASH:
                raise SettingError(
                    f"{claim.file}, line {place.line}: {place.text} ({claim.id}, {place.name}) is published, and its "
                    f"rows, {source.path}, are gone: restore them from git, or write {DASH} until it is measured"
                )
            outcome.unmeasured += 1


def _beside_the_rows(known: ClaimFile, outcome: Outcome, texts: _Texts, claimed: set[tuple[str, int]]) -> Iterator[str]:
    """Yield each passage that has the form of a claim, and that no row of any claim gives: a line added by hand."""
    measured = {number.claim for number in outcome.numbers}
    seen = set(claimed)
    for claim in known.claims:
        if claim.id not in measured:
            continue
        for numbers in passages.occurrences(claim, texts[claim.file]):
            place = numbers[0]
            if (claim.file, place.start) not in seen:
                seen.add((claim.file, place.start))
                yield (
                    f"{claim.file}, line {place.line}: {place.text} is in a passage of the form of claim {claim.id}, "
                    "and no row gives it: remove the passage, or write a claim for it"
                )


def _write(
    root: Path, known: ClaimFile, pins: dict[str, str], texts: _Texts, changes: list[tuple[str, Occurrence, str]]
) -> None:
    for name in sorted({file for file, _, _ in changes}):
        text = passages.written(texts[name], [(place, value) for file, place, value in changes if file == name])
        if text != texts[name]:
            files.write_text(root / name, text)
    text = (root / FILE).read_text(encoding="utf-8")
    for name, digest in pins.items():
        text = _pinned(text, name, known.sources[name], digest)
    files.write_text(root / FILE, text)


def _pinned(text: str, name: str, source: Source, digest: str) -> str:
    """Return the text of claims.yaml with another hash of a source, in the line below its path."""
    before = f"path: {source.path}\n    sha256: "
    if text.count(before) != 1:
        raise SettingError(f"{FILE}, source {name}: write `path: {source.path}` and, in the next line, `sha256: ''`")
    start = text.index(before) + len(before)
    return text[:start] + digest + text[text.index("\n", start) :]


class _Texts(dict[str, str]):
    """The documents by their path below the root, each read once. Raises SettingError for one that cannot be read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __missing__(self, name: str) -> str:
        try:
            self[name] = (self._root / name).read_text(encoding="utf-8")
        except OSError as error:
            raise SettingError(f"document {name} cannot be read ({plain_reason(error)}): correct `file`") from error
        return self[name]
