"""The paths of the repository's folders. It imports little, because a scheduler imports it again and again."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DESIGNS = ROOT / "experiments" / "designs"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
