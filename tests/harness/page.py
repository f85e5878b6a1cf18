"""The page in Chromium, as tests see it."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.harness.paths import CHROMIUM

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and "CI" not in os.environ, reason="needs Chromium (Debian: apt-get install chromium)"
)

WINDOW_MS = 30_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}


def live(page: Any) -> Any:
    """Wait until a page says that it is connected; return it."""
    page.wait_for_selector('#connection[data-kind="live"]', timeout=20_000)
    return page


def shows(page: Any, emoji: str) -> None:
    """Wait until the newest window's ranking has `emoji`."""
    page.wait_for_function(
        "emoji => [...document.querySelectorAll('#now .emoji')].some(it => it.textContent === emoji)",
        arg=emoji,
        timeout=WINDOW_MS,
    )
