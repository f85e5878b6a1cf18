"""Where the repository's folders are. Light to import: a scheduler reads it again and again."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DESIGNS = ROOT / "experiments" / "designs"
NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
