"""The generated parts of the Markdown documents: `python -m experiments docs` writes them, with --check it compares.

A generated part is between `<!-- NAME -->` and `<!-- /NAME -->`, in any Markdown file of the repository; NAME is one of
BLOCKS. The marker of `answers` names a route, as in `<!-- answers GET /healthz ingest -->`. Measured numbers are
not generated here: experiments/claims compares them with the rows behind them, and writes them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from experiments import files, http_tables
from experiments.campaign import design_file
from experiments.campaign.design import Design, order
from experiments.cli import reference as command_line
from experiments.instrument import table
from experiments.repository import DESIGNS, REPORTS, ROOT
from pipeline import settings
from pipeline.errors import SettingError

INSTRUMENT = REPORTS / "bench" / "instrument.json"
SKIPPED = {".git", ".venv", "node_modules", "build", "dist", "_build", "run"}


@dataclasses.dataclass(frozen=True)
class Part:
    """Where a generated part is: its document, and what its marker names."""

    document: Path
    named: str = ""


def update(documents: Sequence[Path] = (), *, check: bool = False, root: Path = ROOT) -> list[Path]:
    """Write the generated parts of `documents` (default: all below `root`); return the documents that were not current.

    With `check` nothing is written. Raises SettingError for a marker without its end.
    """
    stale = []
    for document in documents or sorted(_documents(root)):
        try:
            text = document.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingError(
                f"document {document} cannot be read ({error.strerror}): give the path of a Markdown file"
            ) from error
        current = generated(text, document)
        if current == text:
            continue
        stale.append(document)
        if not check:
            files.write_text(document, current)
    return stale


def generated(text: str, document: Path) -> str:
    """Return the `text` of a document with its generated parts as they should be. Raises as `update` does."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name}\b([^>]*)-->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
        opened = len(re.findall(rf"^<!-- {name}\b[^>]*-->$", text, re.MULTILINE))
        if opened != len(pattern.findall(text)):
            raise SettingError(f"{document} has <!-- {name} --> without its end: add <!-- /{name} --> below it")

        def replaced(match: re.Match[str], block: Callable[[Part], str | None] = block) -> str:
            body = block(Part(document, match.group(2).strip()))
            return match.group(1) + (match.group(3) if body is None else body) + match.group(4)

        text = pattern.sub(replaced, text)
    return text


def _documents(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (Path(folder) / name for name in names if name.endswith(".md"))


def settings_table(part: Part) -> str:
    """Return the table of the chain's settings."""
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in settings.FIELDS.items():
        metas = [meta for meta in getattr(field.type, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
        description = next(meta.description for meta in reversed(metas) if meta.description)
        default = "empty" if field.default == "" else f"`{field.default}`"
        rows.append(f"| `{name}` | {default} | {description.replace('|', '/').replace('<', '&lt;')} |")
    return _lines(rows)


def designs_table(part: Part) -> str:
    """Return the table of the designs that come with the project."""
    rows = ["| design | what it asks | levels | runs |", "| --- | --- | --- | --- |"]
    for name in design_file.named():
        design = design_file.unrehearsed(DESIGNS / f"{name}.yaml")
        rows.append(f"| `{name}` | {design.about} | {_extent(design)} |")
    return _lines(rows)


def commands(part: Part) -> str:
    """Return every command and option."""
    return command_line.reference()


def _extent(design: Design) -> str:
    if design.search is not None:
        return f"a search over `{design.search.factor}` | as many as it needs"
    return f"{len(design.levels)} of {', '.join(f'`{name}`' for name in design.factors)} | {len(order(design))}"


def routes_table(part: Part) -> str:
    """Return the table of every HTTP route."""
    return _lines(http_tables.routes())


def answers_table(part: Part) -> str:
    """Return the table of a route's answers. Raises SettingError for a route that no OpenAPI document has."""
    try:
        return _lines(http_tables.answers(part.named))
    except ValueError as error:
        raise SettingError(f"{part.document}: <!-- answers {part.named} -->: {error}") from error


def faults(part: Part) -> str | None:
    """Return the table of the planted faults, as `make instrument` found them; None if it never ran here."""
    if not INSTRUMENT.exists():
        return None
    return _lines(table.markdown(json.loads(INSTRUMENT.read_text(encoding="utf-8"))))


def _lines(rows: Sequence[str]) -> str:
    return "\n".join(rows) + "\n"


BLOCKS: dict[str, Callable[[Part], str | None]] = {
    "settings": settings_table,
    "designs": designs_table,
    "routes": routes_table,
    "answers": answers_table,
    "commands": commands,
    "faults": faults,
}
"""The generated parts by the name in their marker."""
