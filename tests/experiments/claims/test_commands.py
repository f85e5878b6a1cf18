"""The commands of published numbers, on the documents of this repository and a made-up campaign."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.campaign import keep
from experiments.claims import reproduce as reproductions
from experiments.claims.claim_file import read
from experiments.claims.recompute import FILE
from experiments.cli import __main__ as emostream
from experiments.cli import instrument
from experiments.synthetic.rows import write_campaign
from tests.harness.paths import REPOSITORY


def run(*words: str) -> int:
    """Return the exit status of `emostream`."""
    with pytest.raises(SystemExit) as end:
        emostream.main(list(words))
    assert isinstance(end.value.code, int), end.value.code
    return end.value.code


def test_a_campaign_is_kept_and_its_numbers_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The claims of README are filled from six runs of `hundred`; the documents of this repository stay as they are."""
    known = read(REPOSITORY / FILE)
    for name in (FILE, *{claim.file for claim in known.claims}):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    shutil.copytree(REPOSITORY / "reports" / "bench", tmp_path / "reports" / "bench")
    for kept in keep.all_kept(REPOSITORY / "reports"):
        if kept.name != "hundred":
            shutil.copytree(kept, tmp_path / "reports" / "reference" / kept.name)
    monkeypatch.setattr(instrument, "ROOT", tmp_path)
    # So few reactions have no 99th percentile.
    write_campaign(tmp_path / "reports" / "hundred", runs=6, rates=(100.0,))
    assert run("keep", str(tmp_path / "reports" / "hundred"), "--reports", str(tmp_path / "reports")) == 0
    assert capsys.readouterr().out.strip().endswith("reports/reference/hundred/index.html")
    assert run("second-reading", "--all", str(tmp_path / "reports" / "reference" / "hundred")) == 0
    assert run("claims", "--write") == 0
    text = (tmp_path / "README.md").read_text()
    assert "`emostream sweep hundred`: 6 of 6 runs VALID, 6 met every objective, on 2 cores (Synthetic)" in text
    assert ", commit synthet." in text
    assert "| deliveries missing or doubled | 0 | " in text
    assert len(text.encode()) <= 11_264
    assert "worst window above the floor | 0." in (tmp_path / "docs" / "campaigns.md").read_text()
    table = text[text.index("| tap to screen") : text.index("Each number follows")]
    assert "–" not in table
    capsys.readouterr()
    (tmp_path / "README.md").write_text(text.replace("6 of 6 runs", "6 of 7 runs"))
    assert run("claims", "--json") == 1
    assert json.loads(capsys.readouterr().out)["differing"] == 1


def test_a_reproduction_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a table, or as JSON; status 0 whatever holds."""
    one = reproductions.Compared("hundred", "", "median, s", 3.2, 3.1, 3.3, 4.0, 3.9, 4.1, 2)
    found = reproductions.Reproduction((one,), {"here": "this"})
    monkeypatch.setattr(reproductions, "reproduce", lambda reports, minutes: found)
    assert run("reproduce", "--reports", str(tmp_path)) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("2  no")
    assert run("reproduce", "--json", "--minutes", "5", "--reports", str(tmp_path)) == 0
    assert json.loads(capsys.readouterr().out)["intervals"][0]["holds"] is False
