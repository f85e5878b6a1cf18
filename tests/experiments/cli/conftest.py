"""What all tests of the command line need."""

from __future__ import annotations

import pytest

from pipeline import logs


@pytest.fixture(autouse=True)
def logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process does not configure logging, which would stay configured for later tests."""
    monkeypatch.setattr(logs, "configure", lambda *_: None)
