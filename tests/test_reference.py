"""The reference campaigns: every run kept adds up, and the documents quote what they found.

`python -m tests.test_reference` writes the findings of docs/campaigns.md from reports/reference/, and the figures of
the last hop in docs/operating.md from reports/bench/delivery.json.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments.campaign.report import capacity_result, read
from experiments.campaign.report import levels as campaign_levels
from experiments.campaign.report.levels import FEW_RUNS

REPOSITORY = Path(__file__).resolve().parents[1]
CAMPAIGNS_PAGE = REPOSITORY / "docs" / "campaigns.md"
OPERATING_PAGE = REPOSITORY / "docs" / "operating.md"
REFERENCE = REPOSITORY / "reports" / "reference"
DELIVERY = REPOSITORY / "reports" / "bench" / "delivery.json"
DELIVERY_BLOCK = re.compile(r"(<!-- delivery -->\n).*?(<!-- /delivery -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- reference -->\n).*?(<!-- /reference -->)", re.DOTALL)
# The end-to-end latency is binned by the millisecond, so its mean is known to half of one.
RESOLUTION_S = 0.001
SIZE_MAX = 5_000_000

CAMPAIGNS = sorted(path.parent for path in REFERENCE.glob("*/campaign.json"))
RUNS = [path / "runs" / run["run"] for path in CAMPAIGNS for run in read.about(path)["runs"]]

FIGURES = (
    ("e2e_excess_p50_s", "median above the floor", "{:.2f} s"),
    ("e2e_excess_p99_s", "p99 above the floor", "{:.2f} s"),
    ("headroom", "micro-batch over interval, p95", "{:.1%}"),
    ("representation_error", "representation error", "{:.0%}"),
    ("tv_distance", "mix shown against counted", "{:.3f}"),
)
"""What the page quotes of each level; the last two where the policy varies, the first three elsewhere."""


def findings() -> str:
    """Return the findings of the reference campaigns."""
    parts = []
    for place in CAMPAIGNS:
        about = read.about(place)
        command = f"`python -m experiments sweep experiments/designs/{about['design']['name']}.yaml`"
        runs = read.runs(place)
        valid = int(runs["valid"].sum())
        whole = "" if about.get("ended") else ", not finished"
        head = f"{command}: {about['design']['about']} {len(runs)} runs, {valid} of them VALID{whole}; "
        head += (
            f"commit {', '.join(sorted(_commits(place, runs)))}. [Report](../reports/reference/{place.name}/index.html)"
        )
        body = _capacity(place) if about["design"].get("search") else _levels(about, runs)
        parts.append(f"{head}\n\n{body}")
    return "\n\n".join(parts) + "\n"


def delivery() -> str:
    """Return the figures of the last hop."""
    said = json.loads(DELIVERY.read_text())
    levels = {level["clients"]: level["messages_per_cpu_s"] for level in said["fan_out"]["levels"]}
    few, many = min(levels), max(levels)
    churn, failover = said["churn"], said["failover"]
    p99_ms = {phase: churn[phase]["p99_s"] * 1000 for phase in ("quiet", "churn")}
    memory_mb = [said["fan_in"][f"rss_{when}_mb"] for when in ("before", "after", "when_they_left")]
    rows = [
        (
            f"{said['clients']:,} clients on two subscribers, {said['fan_in']['connections_per_s']:.0f} connecting a "
            "second: first byte, p99",
            f"{said['first_byte_p99_s'] * 1000:.0f} ms",
        ),
        ("a window, from its publishing to its last client, p99", f"{said['publish_to_last_p99_s'] * 1000:.0f} ms"),
        ("server memory a connection", f"{said['kb_per_connection']:.1f} KB"),
        (
            "memory of both subscribers before those clients, with them, and when they had gone",
            "{:.0f}, {:.0f} and {:.0f} MB".format(*memory_mb),
        ),
        (
            f"lost, doubled, out of order, in {said['fan_in']['windows']} windows",
            f"{said['lost']}, {said['duplicated']}, {said['reordered']}",
        ),
        (
            f"messages one process sends in a second of its CPU time, to {few:,} and to {many:,} clients",
            f"{levels[few]:,} and {levels[many]:,}",
        ),
        (
            f"{churn['changes_per_s']:.0f} clients a second coming and {churn['changes_per_s']:.0f} going beside "
            f"{churn['steady']:,} steady ones, {len(churn['rounds'])} times {churn['round_s']:.0f} s: those ones' p99, "
            "by that of the quiet before and after, median",
            f"{said['churn_p99_ratio']:.2f} (all rounds together {churn['p99_ratio_of_all']:.2f}: "
            f"{p99_ms['churn']:.0f} ms by {p99_ms['quiet']:.0f} ms)",
        ),
        ("windows the steady ones missed", f"{said['churn_missed']}"),
        (
            f"a killed subscriber's {failover['killed_clients']:,} clients: until the last is served elsewhere",
            f"{said['failover_s']:.1f} s",
        ),
        ("windows they missed", f"{said['failover_missed']}"),
    ]
    machine = said["machine"]
    table = "".join(f"| {what} | {figure} |\n" for what, figure in rows)
    return f"| {machine['cores']} cores, commit {machine['commit'][:7]} | |\n| --- | --- |\n{table}"


def _commits(place: Path, runs: pd.DataFrame) -> set[str]:
    manifests = [json.loads((place / "runs" / run / "manifest.json").read_text()) for run in runs["run"]]
    return {str(one["commit"])[:7] + (" with changes" if one["dirty"] else "") for one in manifests}


def _capacity(place: Path) -> str:
    return "\n".join(f"- {sentence}" for sentence in capacity_result.read(place).sentences())


def _levels(about: dict[str, Any], runs: pd.DataFrame) -> str:
    levels = campaign_levels.layout(about).levels
    figures = (
        FIGURES[3:] if "policy" in {name for level in about["design"]["levels"] for name in level} else FIGURES[:3]
    )
    table = campaign_levels.estimates(campaign_levels.believed(runs), levels, [key for key, _, _ in figures])
    rows = ["| " + " | ".join(["level", "runs", *(words for _, words, _ in figures)]) + " |"]
    rows.append("| --- |" + " --- |" * (len(figures) + 1))
    for level, words in zip(levels["level"], levels["words"], strict=True):
        ours = table[table["level"] == level].set_index("key")
        cells = [_cell(ours.loc[key], form) for key, _, form in figures]
        rows.append("| " + " | ".join([words, str(int(ours["runs"].max())), *cells]) + " |")
    return "\n".join(rows)


def _cell(row: pd.Series[Any], form: str) -> str:
    if row["runs"] == 0:
        return "–"
    if row["runs"] < FEW_RUNS or math.isnan(row["low"]):
        return form.format(row["median"])
    return f"{form.format(row['median'])} ({form.format(row['low'])} to {form.format(row['high'])})"


def summary(run: Path) -> dict[str, Any]:
    """Return a run's flat figures."""
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))


def test_there_is_a_reference() -> None:
    """Nothing below is vacuous."""
    assert RUNS


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_hops_add_up_to_the_end_to_end_latency(run: Path) -> None:
    """The mean of each hop, added up, is the mean latency that the histogram has, to its resolution."""
    figures = summary(run)
    hops = [value for name, value in figures.items() if re.fullmatch(r"hop_.*_mean_ms", name)]
    assert len(hops) == 10
    assert sum(hops) / 1000 == pytest.approx(figures["e2e_mean_s"], abs=RESOLUTION_S)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_accepted_reaction_was_counted_once(run: Path) -> None:
    """Conservation is exact, in integers."""
    figures = summary(run)
    assert figures["counted"] == figures["accepted"] > 0
    assert not any(figures[name] for name in ("lost", "duplicated", "altered", "foreign", "unexplained"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parents[1].name}-{run.name}")
def test_every_count_agrees_with_the_oracle(run: Path) -> None:
    """Each cell of each window is what the topic holds, and each representative what the policy says."""
    figures = summary(run)
    assert figures["oracle_equal"] == figures["oracle_cells"] > 0
    assert figures["offset_breaks"] == figures["representatives_wrong"] == 0


def test_the_reference_is_small() -> None:
    """No rows, no logs: a clone stays quick."""
    assert sum(path.stat().st_size for path in kept()) < SIZE_MAX


def kept() -> list[Path]:
    """Return the files of the reference that git keeps: a campaign made here has its rows beside them."""
    named = ("manifest.json", "verdict.json", "summary.json", "latency.hdr")
    files = [path for path in REFERENCE.rglob("*") if path.is_file()]
    return [path for path in files if "runs" not in path.relative_to(REFERENCE).parts or path.name in named]


def test_campaigns_page_quotes_the_reference() -> None:
    """The findings are those of the files: `python -m tests.test_reference` writes them."""
    found = BLOCK.search(CAMPAIGNS_PAGE.read_text(encoding="utf-8"))
    assert found is not None
    assert found.group(0) == f"{found.group(1)}{findings()}{found.group(2)}"


def test_operating_page_quotes_the_delivery_benchmark() -> None:
    """The table is that of the file beside it."""
    match = DELIVERY_BLOCK.search(OPERATING_PAGE.read_text(encoding="utf-8"))
    assert match is not None
    assert match.group(0) == f"<!-- delivery -->\n{delivery()}<!-- /delivery -->"


if __name__ == "__main__":
    text = CAMPAIGNS_PAGE.read_text(encoding="utf-8")
    text = BLOCK.sub(lambda found: f"{found.group(1)}{findings()}{found.group(2)}", text)
    CAMPAIGNS_PAGE.write_text(text, encoding="utf-8")
    text = OPERATING_PAGE.read_text(encoding="utf-8")
    text = DELIVERY_BLOCK.sub(lambda found: f"{found.group(1)}{delivery()}{found.group(2)}", text)
    OPERATING_PAGE.write_text(text, encoding="utf-8")
