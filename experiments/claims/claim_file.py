"""`reports/claims.yaml`: which numbers the documents publish, and the query that yields each.

    sources:
      delivery: {path: reports/bench/delivery.json, sha256: …}
    claims:
      - id: delivery-memory
        file: docs/operating.md
        source: delivery
        query: SELECT kb_per_connection AS kb FROM json
        text: "| server memory per connection | {kb:.1f} KB |"

`text` is where the numbers stand in the file: `{kb:.1f}` is a number, rounded as Python's format says; `{name}`
without a format is a word. A query with several rows has the text once for each. White space may differ.
"""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from experiments import text_files
from experiments.campaign import strict_yaml
from experiments.campaign.strict_yaml import shown
from pipeline.errors import SettingError, plain_reason

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,59}\Z")]
CHAIN = ("pipeline", "spark")


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What claims are computed from: a kept campaign's directory, or a JSON file of a benchmark.

    `sha256` is that of the file, or of the campaign's SHA256SUMS; empty before its first measurement. `code` are the
    paths whose change makes the measurement old.
    """

    path: Annotated[str, Meta(pattern=r"^reports/(reference/[\w.-]+|bench/[\w.-]+\.json)\Z")]
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""
    code: tuple[str, ...] = CHAIN

    @property
    def campaign(self) -> bool:
        """Whether it is a kept campaign."""
        return not self.path.endswith(".json")


class Claim(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A passage of a document, and the query that yields its numbers."""

    id: Name
    file: Annotated[str, Meta(pattern=r"^[\w./-]+\.md\Z")]
    source: str
    query: Annotated[str, Meta(min_length=8)]
    text: Annotated[str, Meta(min_length=1)]

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """The name and the format of each placeholder in `text`; a word has an empty format."""
        parts = string.Formatter().parse(self.text)
        return tuple((name, form or "") for _, name, form, _ in parts if name is not None)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the numbers, in the order of `text`."""
        return tuple(name for name, form in self.fields if form)


class Constants(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Numbers of one file that nobody measured: settings, limits, examples. Each is as the text has it: `500 ms`."""

    file: str
    numbers: list[str]


class WithoutRows(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section whose numbers were measured, and of which no rows are kept: `heading`, and `why`."""

    file: str
    heading: str
    why: Annotated[str, Meta(min_length=10)]


class ClaimFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What claims.yaml holds."""

    sources: dict[str, Source]
    claims: list[Claim]
    constants: list[Constants] = []
    without_rows: list[WithoutRows] = []


def read(path: Path) -> ClaimFile:
    """Return the claims in `path`. Raises SettingError naming the file, the line, the field and the remedy."""
    try:
        text = text_files.read(path, "claims")
    except OSError as error:
        raise SettingError(f"claims {path} cannot be read ({plain_reason(error)}): restore it from git") from error
    raw, lines = strict_yaml.read(text, str(path))
    if not isinstance(raw, dict):
        raise SettingError(f"{path} holds {shown(raw)}, not a mapping: start with `sources:` and `claims:`")
    try:
        found = msgspec.convert(raw, ClaimFile)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$")
        steps = _steps(raw, at.rstrip("`"))
        raise lines.error(steps, f"{reason[:1].lower()}{reason[1:]}: correct it") from error
    ids: set[str] = set()
    for number, claim in enumerate(found.claims):
        field = ("claims", number)
        if claim.id in ids:
            raise lines.error((*field, "id"), f"{claim.id!r} is given twice: give each claim its own id")
        ids.add(claim.id)
        if claim.source not in found.sources:
            raise lines.error(
                (*field, "source"), f"{claim.source!r} is not one of the sources: use {', '.join(found.sources)}"
            )
        try:
            named = claim.numbers
        except ValueError as error:
            raise lines.error((*field, "text"), f"its braces do not match ({error}): write a brace as {{{{") from error
        if not named:
            raise lines.error((*field, "text"), "it has no number: write it as {name:.2f}, {name:d} or {name:,}")
    return found


def _steps(raw: Any, at: str) -> list[str | int]:
    """Return `.claims[2].id` as ["claims", 2, "id"]; `[...]` is a name that msgspec does not give."""
    return [int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", at)]
