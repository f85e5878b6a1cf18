"""The report of a campaign: `summary/` and `index.html`, from what the repository keeps of its runs.

Only campaign.json and of each run manifest.json, verdict.json, summary.json and summary/latency.hdr are read, so
that the report of a campaign in git can be written anew. A campaign that is not finished says how far it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments import files
from experiments.analysis.batches import Drift, drift
from experiments.campaign.report import (
    capacity,
    figures,
    figures_by_level,
    provenance,
    sentences,
    tables,
)
from experiments.campaign.report import (
    levels as campaign_levels,
)
from experiments.campaign.report import (
    read as campaign_data,
)
from experiments.campaign.report.levels import Layout, believed
from experiments.campaign.report.spectra import spectra
from experiments.campaign.report.staircase import staircase_figure
from experiments.report import pages, svg
from experiments.report.figures import Drawing
from experiments.units import NS_PER_S
from pipeline.errors import SettingError

KEYS = (
    "e2e_p50_s",
    "e2e_p99_s",
    "e2e_excess_p50_s",
    "e2e_excess_p99_s",
    "batch_p95_s",
    "headroom",
    "lag_slope_upper_share",
    "offered_per_s",
    "accepted_per_s",
    "accepted_share",
    "oracle_share",
    "representation_error",
    "representation_bound",
    "tv_distance",
)
"""The figures of levels.csv; any other of the summary is in runs.csv."""
DRIFTS = ("e2e_excess_p50_s", "batch_p95_s")


@dataclass(frozen=True)
class Summary:
    """A campaign read back and summed up: what its page says, and a notebook shows.

    `about` is campaign.json, `runs` every finished run (campaign_levels.derived), `levels` each of KEYS by level over
    valid runs (campaign_levels.estimates), `objectives` campaign_facts.by_level, `drawings` the figures in the order
    shown, `found` what a search came to.
    """

    about: Mapping[str, Any]
    plan: Layout
    runs: pd.DataFrame
    facts: provenance.Facts
    levels: pd.DataFrame
    objectives: pd.DataFrame
    found: capacity.Found | None
    drawings: dict[str, Drawing]

    @property
    def findings(self) -> list[str]:
        """The sentences of the first paragraph."""
        valid = believed(self.runs)
        closed: list[str] = []
        if closed_loop(self.about) and self.plan.numeric and len(valid):
            law = None
            if _concurrent(self.about, self.plan):
                with suppress(SettingError):  # the figure says why
                    law = figures.fitted(valid, self.plan)
            closed = sentences.throughput(valid, self.plan, law)
        searched = self.found.sentences() if self.found else ()
        return sentences.findings(self.about, self.plan, self.runs, self.objectives, searched, closed)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before believing the statistics."""
        return [*sentences.warnings(self.about, self.runs, self.plan), *self.facts.warnings]


def read(campaign_dir: Path) -> Summary:
    """Return the summary of the campaign in `campaign_dir`, finished or not.

    Raises SettingError naming the file and the remedy where campaign.json or a finished run is damaged.
    """
    about = campaign_data.about(campaign_dir)
    runs = campaign_levels.derived(campaign_data.runs(campaign_dir))
    plan = campaign_levels.layout(about)
    valid = believed(runs)
    facts = provenance.facts(campaign_dir, runs)
    found = capacity.found(about, runs, facts.cores)
    return Summary(
        about,
        plan,
        runs,
        facts,
        levels=campaign_levels.estimates(valid, plan.levels, KEYS),
        objectives=provenance.by_level(provenance.objectives(campaign_dir, runs), plan.levels),
        found=found,
        drawings=draw(campaign_dir, about, plan, valid, found),
    )


def write(campaign_dir: Path) -> Path:
    """Write the report of the campaign in `campaign_dir` and return the path of index.html; raises as `read` does."""
    return save(campaign_dir, read(campaign_dir))


def save(campaign_dir: Path, summary: Summary) -> Path:
    """Write the report of a summary that was read already; return the path of index.html."""
    summary_dir = campaign_dir / "summary"
    summary_dir.mkdir(exist_ok=True)
    for name, (text, data) in summary.drawings.items():
        files.write_text(summary_dir / f"{name}.svg", text)
        files.to_csv(data, summary_dir / f"{name}.csv")
    if summary.found is not None:
        pages.write_json(summary_dir / "capacity.json", summary.found.to_json())
    files.to_csv(summary.levels, summary_dir / "levels.csv")
    files.to_csv(summary.objectives, summary_dir / "objectives.csv")
    runs = summary.runs
    flat = runs.drop(columns=[name for name in ("slos",) if name in runs]).assign(
        reasons=["; ".join(reasons) for reasons in runs["reasons"]]
    )
    files.to_csv(flat, summary_dir / "runs.csv")
    # A factor may be text at one level and a number at another: Parquet wants one type a column.
    mixed = [name for name in flat.columns if flat[name].dtype == object]
    files.to_parquet(flat.astype(dict.fromkeys(mixed, "string")), summary_dir / "runs.parquet")
    path = campaign_dir / "index.html"
    files.write_text(path, render(campaign_dir, summary))
    return path


def draw(
    campaign_dir: Path,
    about: Mapping[str, Any],
    plan: Layout,
    valid: pd.DataFrame,
    found: capacity.Found | None,
) -> dict[str, Drawing]:
    """Return the figures of a campaign by name, in the order shown: (SVG text, data behind it)."""
    limit = about["design"].get("slos", {}).get("headroom")
    residuals, drifts = in_order(valid)
    first: dict[str, Drawing] = {}
    if found is not None:
        first["staircase"] = staircase_figure(found.search, found.probes, found.capacity)
    if _concurrent(about, plan):
        first["scalability"] = figures.scalability_figure(valid, plan)
    return {
        **first,
        "excess": figures.excess_figure(valid, plan),
        "spectrum": figures_by_level.spectrum_figure(spectra(campaign_dir, about, valid, plan.levels), plan),
        "hops": figures_by_level.hops_figure(valid, plan),
        "headroom": figures.headroom_figure(valid, plan, limit),
        "faults": figures_by_level.faults_figure(valid, plan),
        "accuracy": figures.accuracy_figure(valid, plan),
        "order": figures.order_figure(residuals, drifts),
    }


def in_order(valid: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Drift]]:
    """Return each valid run's distance from its level's mean, in ms, and the drift of it over the runs.

    Rows, in the order that happened: `position` (counted from 1 over all finished runs), `run, block, level` and
    the distance for each of DRIFTS. A level with a single valid run has no distance and is left out.
    """
    rows = pd.DataFrame({"position": valid.index + 1, **{name: valid[name] for name in ("run", "block", "level")}})
    for key in DRIFTS:
        measured = valid[key].astype("float64") if key in valid else pd.Series(math.nan, valid.index)
        finite = measured.where(np.isfinite(measured))
        rows[key] = (finite - finite.groupby(valid["level"]).transform("mean")) * 1000
    several = valid.groupby("level")["run"].transform("size").to_numpy(dtype=np.int64) > 1
    rows = rows[several].reset_index(drop=True)
    # `drift` reckons in ms a minute: with a run as its minute, in ms a run.
    minutes = rows["position"].astype("int64") * 60 * NS_PER_S
    return rows, {key: drift(minutes, rows[key] / 1000) for key in DRIFTS}


def render(campaign_dir: Path, summary: Summary) -> str:
    """Return the page as text."""
    plan, runs, objectives = summary.plan, summary.runs, summary.objectives
    valid = believed(runs)
    return pages.render(
        "campaign.html",
        title=str(summary.about["campaign"]),
        about=summary.about,
        design=summary.about["design"],
        plan=plan,
        findings=summary.findings,
        warnings=summary.warnings,
        tiles=tables.tiles(plan, valid, summary.levels),
        levels=tables.level_rows(plan, runs, summary.levels, objectives),
        slo_levels=tables.slo_levels(plan, objectives),
        slo_rows=tables.slo_rows(plan, objectives),
        figures={name: svg.inline(text) for name, (text, _) in summary.drawings.items()},
        order=tables.order_rows(campaign_dir, summary.about),
        finished=len(runs),
        done=runs["index"].nunique(),
        valid=len(valid),
        missed=sorted(set(objectives.loc[~objectives["passed"].astype(bool), "key"])),
        facts=summary.facts,
        span=_span(summary.about),
        undelivered=int(valid["undelivered"].sum()) if len(valid) else 0,
        closed=closed_loop(summary.about),
        regenerate=_regenerate(summary.about),
    )


def _span(about: Mapping[str, Any]) -> str:
    first, last = (str(about.get(name) or "")[:16].replace("T", " ") for name in ("started", "ended"))
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC" if last else f"begun {first} UTC"


def closed_loop(about: Mapping[str, Any]) -> bool:
    """Return whether the campaign's users wait for their answers."""
    given = [row.get("parameters", {}).get("loop") for row in about["order"]]
    return "closed" in given or about["design"].get("parameters", {}).get("loop") == "closed"


def _concurrent(about: Mapping[str, Any], plan: Layout) -> bool:
    """Whether the axis is concurrency, the only one along which the Universal Scalability Law holds."""
    return closed_loop(about) and plan.numeric and plan.factor == "users"


def _regenerate(about: Mapping[str, Any]) -> str:
    name = about["design"].get("name", "DESIGN")
    path = about.get("design_path") or f"experiments/designs/{name}.yaml"
    own = f" --campaign {about['campaign']}" if about["campaign"] != name else ""
    return (
        "# this page, from the files beside it\n"
        f"python -m experiments report reports/{about['campaign']}\n\n"
        "# the measurement, with the same loads; a campaign that was cut off goes on\n"
        f"python -m experiments sweep {path}{own}"
    )
