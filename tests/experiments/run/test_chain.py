"""Starting a chain: what an earlier one left in its folder is not taken for this one's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.run import chain
from pipeline.errors import EmoStreamError


def test_ready_file_of_a_killed_chain_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain that does not start is an error, although the folder says that it is ready."""
    (tmp_path / "ready.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(EmoStreamError, match="the chain did not start"), chain.started({}, tmp_path):
        pass
    assert not (tmp_path / "ready.json").exists()
