"""The kept campaigns and the published numbers of this repository: everything follows from rows that are there."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments import __main__ as command_line
from experiments import documents
from experiments.campaign import campaign_file, crate, keep
from experiments.campaign.report import page
from experiments.claims.claim_file import read
from experiments.claims.recompute import FILE, recompute
from experiments.claims.uncovered import uncovered
from experiments.repository import REPORTS
from experiments.synthetic.rows import write_campaign
from tests.harness.documents import PAGES
from tests.harness.paths import REPOSITORY

KEPT = keep.all_kept(REPORTS)
NOT_WRITTEN_BY_HAND = {"docs/command-line.md", "docs/licences.md", "docs/changelog.md"}
CFF_KEYS = {
    *("abstract", "authors", "cff-version", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "message", "preferred-citation", "references", "repository", "repository-artifact"),
    *("repository-code", "title", "type", "url", "version"),
}
"""The keys that version 1.2.0 of the Citation File Format has."""


def check(kept: Path) -> None:
    """Every file has its hash, the crate describes it, each run's rows give its summary, and the table is theirs."""
    keep.check(kept)
    crate.check(kept)
    for run in campaign_file.read(kept).runs:
        figures = keep.check_summary(kept / "runs" / run.run)
        assert figures["valid"] is run.valid
    table = (kept / "summary" / "levels.csv").read_text(encoding="utf-8")
    assert page.read(kept).levels.to_csv(index=False) == table


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_a_kept_campaign_follows_from_its_rows(kept: Path) -> None:
    """Each run is analysed again."""
    check(kept)


@pytest.mark.parametrize("kept", KEPT, ids=lambda kept: kept.name)
def test_a_kept_campaign_reads_the_same_a_second_time(kept: Path) -> None:
    """In SQL, which shares no code with the first reading; runs that were INVALID too."""
    with pytest.raises(SystemExit) as ended:
        command_line.main(["second-reading", "--all", str(kept)])
    assert ended.value.code == 0


def test_a_table_that_does_not_follow_is_found(tmp_path: Path) -> None:
    """The check above can fail: with one digit of a table changed, and its hash with it."""
    write_campaign(tmp_path / "two", runs=2)
    kept = keep.keep(tmp_path / "two", tmp_path)
    check(kept)
    table, sums = kept / "summary" / "levels.csv", kept / keep.SUMS
    before = keep.files.sha256(table), keep.files.sha256(kept / crate.NAME)
    rows = pd.read_csv(table)
    rows.loc[0, "median"] += 0.001
    rows.to_csv(table, index=False)
    for path in (kept / crate.NAME, sums):
        path.write_text(path.read_text().replace(before[0], keep.files.sha256(table)))
    sums.write_text(sums.read_text().replace(before[1], keep.files.sha256(kept / crate.NAME)))
    with pytest.raises(AssertionError):
        check(kept)


def test_every_published_number_follows_from_its_rows(tmp_path: Path) -> None:
    """What `make claims` finds: no error, no difference. Numbers may be older than their code, and say so."""
    outcome = recompute(REPOSITORY)
    assert outcome.status == 0, "\n".join(outcome.lines())


def test_no_published_number_is_without_a_claim() -> None:
    """A number with a unit is a claim, a constant, or in a section that says why it has no rows."""
    known = read(REPOSITORY / FILE)
    pages = {name: text for name, text in PAGES.items() if name not in NOT_WRITTEN_BY_HAND}
    found = [one for name, text in pages.items() for one in uncovered(known, name, text)]
    assert found == [], f"add a claim, or a line below `constants`, to {FILE}"


def test_claims_name_constants_and_sections_that_are_there() -> None:
    """A file or heading that is gone leaves no line behind."""
    known = read(REPOSITORY / FILE)
    assert {one.file for one in (*known.constants, *known.without_rows, *known.claims)} <= set(PAGES)
    for part in known.without_rows:
        assert f"# {part.heading}\n" in PAGES[part.file], part.heading


def test_the_kept_campaigns_are_small() -> None:
    """A clone stays quick."""
    assert sum(path.stat().st_size for kept in KEPT for path in kept.rglob("*")) <= keep.BYTES_MAX


def test_documents_have_their_generated_parts() -> None:
    """Settings, designs and options in the documents are those of the code."""
    assert documents.update(check=True) == [], "run `python -m experiments docs`"


def test_citation_file_is_valid() -> None:
    """The required keys of CFF 1.2.0, no unknown one, and the facts of LICENSE and pyproject.toml."""
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"authors", "cff-version", "message", "title"} <= set(citation) <= CFF_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert citation["authors"] == [{"name": crate.AUTHORS}]
    assert crate.AUTHORS in (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in project
    assert f'license = "{citation["license"]}"' in project
    assert "date-released" not in citation  # no version was released yet
