"""What each generator says of itself, beside the ledger's figures."""

from __future__ import annotations

import json
from pathlib import Path

from experiments.jmeter.comparison import own_statistics, table


def test_own_statistics_are_the_generators(tmp_path: Path) -> None:
    """JMeter writes its own with its dashboard, Locust as CSV; the open loop has none."""
    assert own_statistics(tmp_path) == {}
    (tmp_path / "locust_stats.csv").write_text(
        "Type,Name,Request Count,50%,99%\nPOST,/reactions,9,3,48\n,Aggregated,9,4,50\n", encoding="utf-8"
    )
    assert own_statistics(tmp_path) == {"p50_ms": 3.0, "p99_ms": 48.0}
    (tmp_path / "dashboard").mkdir()
    rows = {"POST /reactions": {"medianResTime": 2.0, "pct3ResTime": 40.06}, "Total": {"medianResTime": 9.0}}
    (tmp_path / "dashboard" / "statistics.json").write_text(json.dumps(rows), encoding="utf-8")
    assert own_statistics(tmp_path) == {"p50_ms": 2.0, "p99_ms": 40.1}


def test_figures_that_were_not_measured_are_dashes() -> None:
    """The table is Markdown; a run that is INVALID says so."""
    keys = ("reactions_per_s", "answer_p50_ms", "answer_p99_ms", "window_p50_ms", "window_p99_ms", "cores")
    row = dict.fromkeys((*keys, "screen_p50_ms", "screen_p99_ms"), 1234.5)
    lines = table({"open loop": {**row, "own_p50_ms": None, "own_p99_ms": 0.25, "valid": False}}).splitlines()
    assert lines[2].startswith("| open loop | 1,234 | – | 0.25 | 1,234 |")
    assert lines[2].endswith("| no |")
    assert len({line.count("|") for line in lines}) == 1
