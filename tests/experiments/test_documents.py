"""The generated parts of documents: written where their markers are, compared without writing, errors named."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from experiments import __main__ as command_line
from experiments import documents
from experiments.report import run_page
from experiments.synthetic.run import make_run
from pipeline.errors import SettingError


def test_settings_are_written_and_text_around_stays(tmp_path: Path) -> None:
    """Only the lines between the markers change, and only once."""
    page = tmp_path / "docs" / "operating.md"
    page.parent.mkdir()
    page.write_text("# Title\n<!-- settings -->\nbefore\n<!-- /settings -->\nend\n")
    assert documents.update(root=tmp_path) == [page]
    text = page.read_text()
    assert text.startswith("# Title\n<!-- settings -->\n| setting | default | what it is |\n")
    assert text.endswith("<!-- /settings -->\nend\n")
    assert "before\n" not in text
    assert documents.update(root=tmp_path) == []


def test_check_writes_nothing_and_names_the_stale_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1, and prints the document and the remedy."""
    page = tmp_path / "page.md"
    page.write_text("<!-- designs -->\n<!-- /designs -->\n")
    with pytest.raises(SystemExit) as end:
        command_line.main(["docs", "--check", str(page)])
    assert end.value.code == 1
    assert capsys.readouterr().out == f"{page}: not current, run python -m experiments docs\n"
    assert page.read_text() == "<!-- designs -->\n<!-- /designs -->\n"
    with pytest.raises(SystemExit) as end:
        command_line.main(["docs", str(page)])
    assert end.value.code == 0
    assert "| `smoke` |" in page.read_text()


def test_links_of_the_reference_start_at_the_document(tmp_path: Path) -> None:
    """The same part has another link in another folder."""
    root = documents.generated("<!-- reference -->\n<!-- /reference -->\n", documents.ROOT / "README.md")
    below = documents.generated("<!-- reference -->\n<!-- /reference -->\n", documents.ROOT / "docs" / "campaigns.md")
    assert "](reports/reference/capacity/index.html)" in root
    assert "](../reports/reference/capacity/index.html)" in below


def test_figures_need_a_run_that_is_named(tmp_path: Path) -> None:
    """Without a run the figures stay; the marker or the command line names one; an INVALID run is refused."""
    run = make_run(measured_triggers=3)
    more = {"cores": 2, "cpu": "CPU", "kernel": "Linux", "ready_s": 20.0, "parameters": run.parameters}
    run_page.write_report(tmp_path, run.frames, run.parameters, run.manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(run.manifest | more))
    page = tmp_path / "page.md"
    kept = "<!-- figures -->\nkept\n<!-- /figures -->\n"
    assert documents.generated(kept, page) == kept
    assert "| reactions counted |" in documents.generated(kept, page, tmp_path)
    about = run.manifest | more | {"parameters": run.parameters | {"arrivals": "trace", "trace": "o'brien (1).csv"}}
    (tmp_path / "manifest.json").write_text(json.dumps(about))
    command = documents.generated(kept, page, tmp_path).split("`")[1]
    assert {"arrivals", "trace", "o'brien (1).csv"} < set(shlex.split(command))
    named = f"<!-- figures {tmp_path} -->\nold\n<!-- /figures -->\n"
    assert "| reactions counted |" in documents.generated(named, page)
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"valid": False}))
    with pytest.raises(SettingError, match="is INVALID: name a valid run"):
        documents.generated(named, page)


def test_marker_without_its_end_is_named(tmp_path: Path) -> None:
    """Nothing is guessed: the document and the missing marker are named."""
    with pytest.raises(SettingError, match=r"page\.md has <!-- settings --> without its end: add <!-- /settings -->"):
        documents.generated("<!-- settings -->\nrest\n", tmp_path / "page.md")


def test_answers_of_an_unknown_route_are_an_error() -> None:
    """The error names the document, the route and the form."""
    with pytest.raises(SettingError, match="'GET /nothing ingest' is not a documented route: give a method, a path"):
        documents.generated("<!-- answers GET /nothing ingest -->\n<!-- /answers -->\n", documents.ROOT / "README.md")
