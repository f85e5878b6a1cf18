"""Published numbers: computed again from rows, compared with the text, written, and dated."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments.campaign import keep
from experiments.claims.claim_file import read
from experiments.claims.recompute import FILE, RESULT, recompute
from experiments.synthetic.rows import write_campaign
from pipeline.errors import SettingError

RUN = "20261120T000000"
CLAIMS = """
sources:
  six:
    path: reports/reference/six
    sha256: ''
    code: [pipeline, spark]
  later:
    path: reports/reference/later
    sha256: ''
  bench:
    path: reports/bench/load.json
    sha256: ''
claims:
  - id: latency
    file: README.md
    source: six
    query: >-
      SELECT median(e2e_p50_s) AS p50, interval_low(list(e2e_p50_s)) AS low, interval_high(list(e2e_p50_s)) AS high,
      count(*) AS n, max(cpu) AS cpu FROM runs JOIN machines USING (run) WHERE valid
    text: "Of {n:d} runs on {cpu:s}, tap to screen took {p50:.3f} s ({low:.3f} to {high:.3f})."
  - id: rows
    file: docs/page.md
    source: six
    query: SELECT run, count(*) AS reactions FROM sent GROUP BY run ORDER BY run LIMIT 2
    text: "| {run} | {reactions:,} |"
  - id: later
    file: docs/page.md
    source: later
    query: SELECT estimate FROM capacity
    text: "carries {estimate:,.0f} reactions/s"
  - id: rates
    file: docs/page.md
    source: bench
    query: SELECT 100 * share AS share, nothing, unnest(rates) AS rate FROM json
    text: "at {rate}: {share:.1f} % ({nothing:d})"
"""
README = "# Title\n\nOf – runs on –, tap to screen took – s (–\nto –).\n"
PAGE = (
    f"| run | reactions |\n| {RUN} | – |\n| 20261120T010000 | – |\n\nIt carries – reactions/s.\n\n"
    "at 100: – % (–)\nat 200: – % (–)\n"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a campaign of six runs, a benchmark, and two documents whose numbers are written."""
    root = tmp_path_factory.mktemp("repository")
    write_campaign(root / "made" / "six", runs=6)
    keep.keep(root / "made" / "six", root / "reports")
    shutil.rmtree(root / "made")
    (root / "reports" / "bench").mkdir()
    (root / "reports" / "bench" / "load.json").write_text(
        json.dumps({"share": 0.4567, "nothing": None, "rates": [100, 200], "machine": {"commit": "0" * 40}})
    )
    (root / FILE).write_text(CLAIMS)
    (root / "docs").mkdir()
    (root / "README.md").write_text(README)
    (root / "docs" / "page.md").write_text(PAGE)
    outcome = recompute(root, write=True)
    assert outcome.status == 0, list(outcome.lines())
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(original, tmp_path / "root"))


@pytest.fixture
def light(root: Path) -> Path:
    """Without the campaign, so that nothing is analysed again."""
    text = (root / FILE).read_text()
    for start, end in (("  six:\n", "  later:\n"), ("  - id: latency\n", "  - id: later\n")):
        text = text[: text.index(start)] + text[text.index(end) :]
    (root / FILE).write_text(text)
    return root


def change(path: Path, old: str, new: str) -> None:
    """Replace the one `old` in a file."""
    text = path.read_text()
    assert text.count(old) == 1, (old, text)
    path.write_text(text.replace(old, new))


def test_numbers_are_written_from_the_rows(original: Path) -> None:
    """Rounded as the claim says; a value that is null is a dash; what is not measured stays one; hashes are pinned."""
    kept = original / "reports" / "reference" / "six"
    p50 = pd.Series(
        [json.loads(path.read_text())["e2e_p50_s"] for path in sorted(kept.glob("runs/*/summary.json"))]
    ).median()
    assert f"Of 6 runs on Synthetic, tap to screen took {p50:.3f} s (" in (original / "README.md").read_text()
    page = (original / "docs" / "page.md").read_text()
    assert f"| {RUN} | {len(pd.read_parquet(kept / 'runs' / RUN / 'sent.parquet')):,} |" in page
    assert "It carries – reactions/s." in page
    assert "\nat 100: 45.7 % (–)\nat 200: 45.7 % (–)\n" in page
    sources = read(original / FILE).sources
    assert sources["six"].sha256 == keep.files.sha256(kept / keep.SUMS)
    assert sources["later"].sha256 == ""


def test_result_has_the_counts(original: Path) -> None:
    """Of the numbers; the age of what has no known commit is unknown."""
    result = json.loads((original / RESULT).read_text())
    assert {name: result[name] for name in ("claims", "recomputed", "differing", "stale", "unmeasured")} == {
        "claims": 12,
        "recomputed": 11,
        "differing": 0,
        "stale": 0,
        "unmeasured": 1,
    }
    assert result["errors"] == []
    assert result["runs_analysed_again"] == {"six": 6}
    assert result["age_unknown"] == ["six", "bench"]


def test_a_passage_that_no_row_gives_is_named(light: Path) -> None:
    """A line added by hand has the form of a claim, and no rows."""
    change(light / "docs" / "page.md", "at 200: 45.7 % (–)\n", "at 200: 45.7 % (–)\nat 300: 99.9 % (–)\n")
    outcome = recompute(light)
    assert outcome.status == 1
    assert outcome.errors == [
        "docs/page.md, line 9: 99.9 is in a passage of the form of claim rates, and no row gives it: remove the "
        "passage, or write a claim for it"
    ]


def test_one_edited_digit_is_named(light: Path) -> None:
    """With the file, the line, what is there, and what the rows give; writing puts it right."""
    change(light / "docs" / "page.md", "at 200: 45.7", "at 200: 45.8")
    outcome = recompute(light)
    assert outcome.status == 1
    assert "docs/page.md, line 8: 45.8 differs from the rows, which give 45.7 (rates, share)" in list(outcome.lines())
    assert json.loads((light / RESULT).read_text())["differing"] == 1
    assert recompute(light, write=True).status == 0
    assert "at 200: 45.7" in (light / "docs" / "page.md").read_text()


def another_row(root: Path) -> None:
    """Change a stamp."""
    path = root / "reports" / "reference" / "six" / "runs" / RUN / "sent.parquet"
    rows = pd.read_parquet(path)
    rows.loc[3, "t_sent_ns"] += 1
    rows.to_parquet(path, index=False)


def pinned_again(root: Path) -> None:
    """Change a row, and its hash in SHA256SUMS: claims.yaml has the hash of that file."""
    path = root / "reports" / "reference" / "six" / "runs" / RUN / "sent.parquet"
    before = keep.files.sha256(path)
    another_row(root)
    change(path.parents[2] / keep.SUMS, before, keep.files.sha256(path))


def another_summary(root: Path) -> None:
    """Change a figure of a run, and every hash of it."""
    six = root / "reports" / "reference" / "six"
    path = six / "runs" / RUN / "summary.json"
    before, sums = keep.files.sha256(path), keep.files.sha256(six / keep.SUMS)
    change(path, '"e2e_p50_s": ', '"e2e_p50_s": 1')
    change(six / keep.SUMS, before, keep.files.sha256(path))
    change(root / FILE, sums, keep.files.sha256(six / keep.SUMS))


def gone(root: Path) -> None:
    """Remove the campaign."""
    shutil.rmtree(root / "reports" / "reference" / "six")


def half_gone(root: Path) -> None:
    """Remove a frame."""
    (root / "reports" / "reference" / "six" / "runs" / RUN / "topic.parquet").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (another_row, r"sent.parquet has another SHA-256 than SHA256SUMS names: restore it from git"),
        (pinned_again, r"SHA256SUMS has another SHA-256 than the source six in claims.yaml names"),
        (another_summary, r"summary.json differs from the rows in e2e_p50_s: e2e_p50_s is 1"),
        (gone, "README.md, line 3: 6 (latency, n) is published, and its rows, reports/reference/six, are gone"),
        (half_gone, "topic.parquet is missing"),
    ],
)
def test_rows_that_are_changed_or_gone_are_an_error(root: Path, damage: Callable[[Path], None], message: str) -> None:
    """The file is named, nothing is written, and the other source is compared all the same."""
    damage(root)
    before = (root / "README.md").read_text()
    outcome = recompute(root)
    assert outcome.status == 1
    assert len(outcome.errors) == 1
    assert message in outcome.errors[0]
    assert len(outcome.numbers) == 4
    if damage is not pinned_again:
        assert recompute(root, write=True).status == 1
    assert (root / "README.md").read_text() == before


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("share AS share", "shares AS share", "fails: Binder Error"),
        ("nothing, unnest", "unnest", "its query gives no column 'nothing'"),
        ("{share:.1f}", "{share:d}", "share is 45.67, which 'd' does not fit"),
        ("FROM json", "FROM json WHERE share > 1", "gives no row"),
        ("at {rate}:", "where {rate}:", "its text is not in docs/page.md for 100: write it there as 'where {rate}:"),
        ("at {rate}: {share", "{share", "its text is 2 times in docs/page.md"),
    ],
)
def test_a_claim_that_cannot_be_computed_is_named(light: Path, old: str, new: str, message: str) -> None:
    """Its id, and what is wrong."""
    change(light / FILE, old, new)
    outcome = recompute(light)
    assert outcome.status == 1
    assert "rates" in outcome.errors[0] or "bench" in outcome.errors[0]
    assert message in outcome.errors[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  - id: rates", "  - id: later", r"field claims\[1\].id: 'later' is given twice"),
        (
            "source: bench",
            "source: banch",
            r"field claims\[1\].source: 'banch' is not one of the sources: use later, bench",
        ),
        ("at {rate}: {share:.1f} % ({nothing:d})", "at {rate", r"field claims\[1\].text: its braces do not match"),
        ("at {rate}: {share:.1f} % ({nothing:d})", "at {rate}:", r"field claims\[1\].text: it has no number"),
        ("    source: bench\n", "", r"line \d+, field claims\[1\]: object missing required field `source`"),
        ("path: reports/bench/load.json", "path: ../load.json", r"expected `str` matching regex"),
        ("claims:\n", "claims: [\n", r"is not valid YAML"),
        ("source: bench", "source: bench\n    tolerance: 1", r"object contains unknown field `tolerance`"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(light: Path, old: str, new: str, message: str) -> None:
    """The file, the line and the field."""
    change(light / FILE, old, new)
    with pytest.raises(SettingError, match=message):
        recompute(light)


def test_a_file_that_is_missing_is_named(light: Path) -> None:
    """claims.yaml itself, or a document."""
    (light / "docs" / "page.md").unlink()
    assert "document docs/page.md cannot be read (no such file or directory)" in recompute(light).errors[0]
    (light / FILE).unlink()
    with pytest.raises(SettingError, match=r"claims\.yaml cannot be read"):
        recompute(light)


def git(root: Path, *words: str) -> str:
    """The answer of git in `root`."""
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_a_stage_that_changed_since_makes_numbers_old_and_not_wrong(light: Path, tmp_path: Path) -> None:
    """The table names the stage and the commit; a shallow clone says that it cannot know."""
    stage = light / "pipeline" / "ingest" / "app.py"
    stage.parent.mkdir(parents=True)
    stage.write_text("1\n")
    git(light, "init", "-q")
    git(light, "add", "pipeline")
    git(light, "commit", "-qm", "measured")
    commit = git(light, "rev-parse", "HEAD")
    load = light / "reports" / "bench" / "load.json"
    load.write_text(load.read_text().replace("0" * 40, commit))
    git(light, "add", ".")
    git(light, "commit", "-qm", "kept")
    outcome = recompute(light, write=True)
    assert outcome.stale == []
    stage.write_text("2\n")
    git(light, "commit", "-qam", "changed")
    outcome = recompute(light)
    assert outcome.status == 0
    assert {number.claim for number in outcome.stale} == {"rates"}
    assert outcome.ages["bench"].words == f"measured before pipeline/ingest has changed (at {commit[:7]})"
    assert json.loads((light / RESULT).read_text())["stale"] == 4
    git(light, "commit", "-qam", "result")
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{light}", str(shallow))
    assert "this clone is shallow (git fetch --unshallow)" in recompute(shallow).ages["bench"].words
