"""The generated parts of documents: written where their markers are, compared without writing, errors named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import __main__ as command_line
from experiments import documents
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


def test_marker_without_its_end_is_named(tmp_path: Path) -> None:
    """Nothing is guessed: the document and the missing marker are named."""
    with pytest.raises(SettingError, match=r"page\.md has <!-- settings --> without its end: add <!-- /settings -->"):
        documents.generated("<!-- settings -->\nrest\n", tmp_path / "page.md")


def test_answers_of_an_unknown_route_are_an_error() -> None:
    """The error names the document, the route and the form."""
    with pytest.raises(SettingError, match="'GET /nothing ingest' is not a documented route: give a method, a path"):
        documents.generated("<!-- answers GET /nothing ingest -->\n<!-- /answers -->\n", documents.ROOT / "README.md")
