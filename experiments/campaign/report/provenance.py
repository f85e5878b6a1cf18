"""The commits, machines and versions of a campaign's runs, and the result of each objective in each run."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments import run_files
from experiments.analysis.verdict import SLOS
from experiments.report.format import count


@dataclass(frozen=True)
class Facts:
    """Commits and machines of the finished runs, each with its number of runs; `dirty` is a number of runs too, and so
    is `unknown`, of which git said nothing. `boots` and `days` count from how many boots of the machines, and from how
    many days (UTC) the runs are. `versions` and `cores` are those of the last run that names them.
    """

    runs: int
    commits: dict[str, int]
    dirty: int
    unknown: int
    machines: dict[str, int]
    boots: int
    days: int
    versions: dict[str, str]
    cores: int | None

    @property
    def origin(self) -> str:
        """From how many machines, boots and days the runs are: what differs between those is another variance."""
        parts = (("machine", len(self.machines)), ("boot", self.boots), ("day", self.days))
        return ", ".join(count(number, noun) for noun, number in parts)

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before comparing the runs with one another."""
        sentences = []
        if len(self.commits) > 1:
            parts = ", ".join(f"{commit[:12]} ({n} runs)" for commit, n in self.commits.items())
            sentences.append(
                f"The runs are of different commits: {parts}. The code may cause differences between levels."
            )
        if self.dirty:
            sentences.append(
                f"{self.dirty} of {self.runs} runs were made with uncommitted changes: their code is not in git."
            )
        if self.unknown:
            sentences.append(f"Of {self.unknown} of {self.runs} runs it is not known whether their code is in git.")
        if len(self.machines) > 1:
            parts = "; ".join(f"{machine} ({n} runs)" for machine, n in self.machines.items())
            sentences.append(f"The runs are of different machines: {parts}.")
        return sentences


def facts(campaign_dir: Path, runs: pd.DataFrame) -> Facts:
    """Return the facts of the campaign's finished runs. Raises RunFileError for a missing or damaged manifest.json."""
    commits: Counter[str] = Counter()
    machines: Counter[str] = Counter()
    boots: set[str] = set()
    dirty = unknown = 0
    versions: dict[str, str] = {}
    cores: int | None = None
    for run in runs["run"]:
        manifest = run_files.manifest(campaign_dir / "runs" / run)
        commits[manifest.get("commit") or "no commit known"] += 1
        dirty += bool(manifest.get("dirty"))
        unknown += manifest.get("dirty") is None
        parts = (manifest.get("cpu"), manifest.get("cores") and f"{manifest['cores']} cores", manifest.get("kernel"))
        machines[", ".join(str(part) for part in parts if part) or "a machine not named"] += 1
        boots.add(str(manifest.get("boot_id")))
        versions = {name: str(version) for name, version in manifest.get("versions", {}).items()} or versions
        cores = manifest.get("cores") or cores
    # A run is named after the moment at which it began, UTC.
    days = {run.partition("T")[0] for run in runs["run"]}
    return Facts(len(runs), dict(commits), dirty, unknown, dict(machines), len(boots), len(days), versions, cores)


def first_edition(runs: pd.DataFrame) -> list[str]:
    """Return the sentence about runs that were analysed by the protocol's first edition, none if there are none."""
    edition = runs["protocol_edition"] if "protocol_edition" in runs else pd.Series(1.0, runs.index)
    old = int(edition.fillna(1).lt(2).sum())
    if not old:
        return []
    these = "Its runs" if old == len(runs) else f"{old} of its {len(runs)} runs"
    sentences = [
        f"{these} were analysed by the first edition of the protocol: latency above the floor is the difference of two "
        "quantiles, and the representation error counts the load's truncated last window."
    ]
    if "warm_up_steady" in runs and (kept := int((runs["warm_up_steady"] == False).sum())):  # noqa: E712 - null is not False
        sentences.append(f"{kept} of {len(runs)} runs were not steady; that edition left none out for it.")
    return sentences


def objectives(campaign_dir: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run and objective of its verdict.json: `run, level, valid, key, name, unit, figure, limit,
    at_least, passed`; `figure` is +inf where it never arrived, NaN where it was not measured. Raises RunFileError.
    """
    rows = []
    for run in runs.to_dict("records"):
        for slo in run_files.verdict(campaign_dir / "runs" / run["run"]).slos:
            known = SLOS.get(slo.key)
            rows.append(
                {
                    "run": run["run"],
                    "level": run["level"],
                    "valid": bool(run["valid"]),
                    "key": slo.key,
                    "name": known.name if known else slo.name or slo.key,
                    "unit": known.unit if known else slo.unit,
                    "figure": slo.measured,
                    "limit": slo.limit,
                    "at_least": slo.at_least,
                    "passed": slo.passed,
                }
            )
    names = ["run", "level", "valid", "key", "name", "unit", "figure", "limit", "at_least", "passed"]
    return pd.DataFrame(rows, columns=names)


def by_level(objectives: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return a row per objective and level over its valid runs: `key, name, unit, limit, at_least, level, label,
    runs, missed, worst, median, passed`.

    An objective is passed if every valid run met it; `worst` is NaN if any run did not measure it.
    """
    valid = objectives[objectives["valid"].astype(bool)]
    rows = []
    for key, of_key in valid.groupby("key", sort=False):
        first = of_key.iloc[0]
        for level, label in zip(levels["level"], levels["label"], strict=True):
            of_both = of_key[of_key["level"] == level]
            if of_both.empty:
                continue
            worst = of_both["figure"].min(skipna=False) if first["at_least"] else of_both["figure"].max(skipna=False)
            rows.append(
                {
                    "key": key,
                    **{name: first[name] for name in ("name", "unit", "limit", "at_least")},
                    "level": level,
                    "label": label,
                    "runs": len(of_both),
                    "missed": int((~of_both["passed"]).sum()),
                    "worst": float(worst),
                    "median": float(of_both["figure"].median()) if of_both["figure"].notna().any() else math.nan,
                    "passed": bool(of_both["passed"].all()),
                }
            )
    names = [
        "key",
        "name",
        "unit",
        "limit",
        "at_least",
        "level",
        "label",
        "runs",
        "missed",
        "worst",
        "median",
        "passed",
    ]
    return pd.DataFrame(rows, columns=names)
