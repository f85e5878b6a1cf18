"""The report of a campaign: `summary/` and `index.html`, from the files that the repository keeps of its runs.

It reads only campaign.json and, of each run, manifest.json, verdict.json, summary.json and summary/*.hdr, so that the
report of a campaign in git can be written again. An unfinished campaign's page says how far it is.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from experiments import files
from experiments.analysis.batches import Drift, drift
from experiments.campaign import campaign_file
from experiments.campaign.campaign_file import State
from experiments.campaign.report import capacity, estimates, figures, provenance, sentences, tables
from experiments.campaign.report import read as read_back
from experiments.campaign.report.dose_response import dose_response_figure
from experiments.campaign.report.estimates import believed
from experiments.campaign.report.levels import Layout, layout
from experiments.campaign.report.spectra import spectra
from experiments.report import pages, svg
from experiments.report.figures import Drawing
from experiments.units import NS_PER_S
from pipeline.errors import SettingError
from pipeline.shell import command, path_word

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
"""The figures of levels.csv; runs.csv has all figures of the summaries."""
DRIFTS = ("e2e_excess_p50_s", "batch_p95_s")


@dataclass(frozen=True)
class Summary:
    """A campaign read back and summed up, for its page or a notebook.

    `whole` is campaign.json, `every` has each finished run (estimates.derived); `state` and `runs` are the same without
    the probes of a search's footprint, which are no levels: the figures show the chain as it is. `levels` has each of
    KEYS by level over valid runs (estimates.estimates), `objectives` is provenance.by_level, `found` the result of a
    search, `drawings` the figures in the order shown.
    """

    whole: State
    every: pd.DataFrame
    state: State
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
        if closed_loop(self.state) and self.plan.numeric and len(valid):
            law = None
            if _concurrent(self.state, self.plan):
                with suppress(SettingError):  # the figure says why
                    law = figures.fitted(valid, self.plan)
            closed = sentences.throughput(valid, self.plan, law)
        searched = self.found.sentences() if self.found else ()
        return sentences.findings(self.state, self.plan, self.runs, self.objectives, searched, closed)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before using the statistics."""
        return [
            *sentences.warnings(self.state, self.runs, self.plan),
            *self.facts.warnings,
            *provenance.first_edition(self.runs),
        ]


def read(campaign_dir: Path) -> Summary:
    """Return the summary of the campaign in `campaign_dir`, finished or not.

    Raises RunFileError naming the file of the campaign or of a finished run that is missing or damaged.
    """
    whole = campaign_file.read(campaign_dir)
    every = estimates.derived(read_back.runs(campaign_dir))
    facts = provenance.facts(campaign_dir, every)
    found = capacity.found(whole, every, facts.cores)
    state = whole.own
    runs = read_back.listed(every, state)
    plan = layout(state)
    valid = believed(runs)
    return Summary(
        whole,
        every,
        state,
        plan,
        runs,
        facts,
        levels=estimates.estimates(valid, plan.levels, KEYS),
        objectives=provenance.by_level(provenance.objectives(campaign_dir, runs), plan.levels),
        found=found,
        drawings=draw(campaign_dir, state, plan, valid, found),
    )


def write(campaign_dir: Path) -> Path:
    """Write the report of the campaign in `campaign_dir` and return the path of index.html; raises as `read` does."""
    return save(campaign_dir, read(campaign_dir))


def save(campaign_dir: Path, summary: Summary) -> Path:
    """Write the report of a summary; return the path of index.html."""
    summary_dir = campaign_dir / "summary"
    summary_dir.mkdir(exist_ok=True)
    for name, (text, data) in summary.drawings.items():
        files.write_text(summary_dir / f"{name}.svg", text)
        files.to_csv(data, summary_dir / f"{name}.csv")
    if summary.found is not None:
        pages.write_json(summary_dir / "capacity.json", summary.found.to_json())
    files.to_csv(summary.levels, summary_dir / "levels.csv")
    files.to_csv(summary.objectives, summary_dir / "objectives.csv")
    runs = summary.every
    flat = runs.drop(columns=[name for name in ("slos",) if name in runs]).assign(
        reasons=["; ".join(reasons) for reasons in runs["reasons"]]
    )
    files.to_csv(flat, summary_dir / "runs.csv")
    # A factor may be text at one level and a number at another: Parquet needs one type per column.
    mixed = [name for name in flat.columns if flat[name].dtype == object]
    files.to_parquet(flat.astype(dict.fromkeys(mixed, "string")), summary_dir / "runs.parquet")
    path = campaign_dir / "index.html"
    files.write_text(path, render(campaign_dir, summary))
    return path


@svg.defaults()
def draw(
    campaign_dir: Path,
    state: State,
    plan: Layout,
    valid: pd.DataFrame,
    found: capacity.Found | None,
) -> dict[str, Drawing]:
    """Return the figures of a campaign by name, in the order shown: (SVG text, data behind it)."""
    limit = state.design.slos.get("headroom")
    residuals, drifts = in_order(valid)
    first: dict[str, Drawing] = {}
    if found is not None:
        first["dose_response"] = dose_response_figure(found)
    if _concurrent(state, plan):
        first["scalability"] = figures.scalability_figure(valid, plan)
    return {
        **first,
        "excess": figures.excess_figure(valid, plan),
        "spectrum": figures.spectrum_figure(spectra(campaign_dir, state, valid, plan.levels), plan),
        "hops": figures.hops_figure(valid, plan),
        "headroom": figures.headroom_figure(valid, plan, limit),
        "faults": figures.faults_figure(valid, plan),
        "accuracy": figures.accuracy_figure(valid, plan),
        "order": figures.order_figure(residuals, drifts),
    }


def in_order(valid: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Drift]]:
    """Return each valid run's distance from its level's mean, in ms, and the drift of it over the runs.

    Rows, in the order of execution: `position` (counted from 1 over all finished runs), `run, block, level` and the
    distance for each of DRIFTS. A level with a single valid run has no distance and is left out.
    """
    rows = pd.DataFrame({"position": valid.index + 1, **{name: valid[name] for name in ("run", "block", "level")}})
    for key in DRIFTS:
        measured = valid[key].astype("float64") if key in valid else pd.Series(math.nan, valid.index)
        finite = measured.where(np.isfinite(measured))
        rows[key] = (finite - finite.groupby(valid["level"]).transform("mean")) * 1000
    several = valid.groupby("level")["run"].transform("size").to_numpy(dtype=np.int64) > 1
    rows = rows[several].reset_index(drop=True)
    # `drift` is in ms per minute: with one minute for each run, it is in ms per run.
    minutes = rows["position"].astype("int64") * 60 * NS_PER_S
    return rows, {key: drift(minutes, rows[key] / 1000) for key in DRIFTS}


def render(campaign_dir: Path, summary: Summary) -> str:
    """Return the page as text."""
    plan, runs, objectives = summary.plan, summary.runs, summary.objectives
    valid = believed(runs)
    return pages.render(
        "campaign.html",
        title=summary.state.campaign,
        state=summary.state,
        design=msgspec.to_builtins(summary.state.design),
        plan=plan,
        findings=summary.findings,
        warnings=summary.warnings,
        tiles=tables.tiles(plan, valid, summary.levels),
        levels=tables.level_rows(plan, runs, summary.levels, objectives),
        slo_levels=tables.slo_levels(plan, objectives),
        slo_rows=tables.slo_rows(plan, objectives),
        figures={name: svg.inline(text) for name, (text, _) in summary.drawings.items()},
        order=tables.order_rows(campaign_dir, summary.whole),
        finished=len(runs),
        done=runs["index"].nunique(),
        valid=len(valid),
        missed=sorted(set(objectives.loc[~objectives["passed"].astype(bool), "key"])),
        facts=summary.facts,
        span=_span(summary.state),
        undelivered=int(valid["undelivered"].sum()) if len(valid) else 0,
        closed=closed_loop(summary.state),
        regenerate=_regenerate(summary.state),
    )


def _span(state: State) -> str:
    first, last = (str(moment or "")[:16].replace("T", " ") for moment in (state.started, state.ended))
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC" if last else f"started {first} UTC"


def closed_loop(state: State) -> bool:
    """Return whether the campaign's users wait for their answers."""
    return "closed" in [state.design.parameters.get("loop"), *(run.parameters.get("loop") for run in state.order)]


def _concurrent(state: State, plan: Layout) -> bool:
    """Return whether the axis is concurrency, the only one to which the Universal Scalability Law applies."""
    return closed_loop(state) and plan.numeric and plan.factor == "users"


def _regenerate(state: State) -> str:
    name = state.design.name
    path = path_word(state.design_path or f"experiments/designs/{name}.yaml")
    own = [f"--campaign={state.campaign}"] if state.campaign != name else []
    return (
        "# this page, from the files beside it\n"
        f"{command('experiments', 'report', f'reports/{state.campaign}')}\n\n"
        "# the measurement, with the same loads; a campaign that was cut off is resumed\n"
        f"{command('experiments', 'sweep', path, *own)}"
    )
