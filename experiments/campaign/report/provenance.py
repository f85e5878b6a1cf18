"""What a campaign's runs were made with, and how each objective went: manifest.json and verdict.json read back."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis import verdict
from pipeline.errors import SettingError


@dataclass(frozen=True)
class Facts:
    """Commits and machines of the finished runs, each with its number of runs; `dirty` and `runs` are numbers of
    runs. `versions` and `cores` are those of the last run, `cores` None where it does not say.
    """

    runs: int
    commits: dict[str, int]
    dirty: int
    machines: dict[str, int]
    versions: dict[str, str]
    cores: int | None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before comparing the runs with one another."""
        said = []
        if len(self.commits) > 1:
            parts = ", ".join(f"{commit[:12]} ({n} runs)" for commit, n in self.commits.items())
            said.append(f"The runs are of different commits: {parts}. Differences between levels may be the code's.")
        if self.dirty:
            said.append(
                f"{self.dirty} of {self.runs} runs were made with changes that were not committed: no one can check "
                "their code out."
            )
        if len(self.machines) > 1:
            parts = "; ".join(f"{machine} ({n} runs)" for machine, n in self.machines.items())
            said.append(f"The runs are of different machines: {parts}.")
        return said


def facts(campaign_dir: Path, runs: pd.DataFrame) -> Facts:
    """Return the facts of the campaign's finished runs; SettingError names a manifest.json that is damaged."""
    commits: Counter[str] = Counter()
    machines: Counter[str] = Counter()
    dirty = 0
    versions: dict[str, str] = {}
    cores: int | None = None
    for run in runs["run"]:
        about = _read(campaign_dir / "runs" / run / "manifest.json")
        commits[str(about.get("commit") or "no commit known")] += 1
        dirty += bool(about.get("dirty"))
        parts = (about.get("cpu"), about.get("cores") and f"{about['cores']} cores", about.get("kernel"))
        machines[", ".join(str(part) for part in parts if part) or "a machine not named"] += 1
        versions = {name: str(version) for name, version in about.get("versions", {}).items()} or versions
        cores = about.get("cores") or cores
    return Facts(len(runs), dict(commits), dirty, dict(machines), versions, cores)


def objectives(campaign_dir: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row per run and objective of its verdict.json: `run, level, valid, key, name, unit, figure, limit,
    at_least, passed`; `figure` is +inf for what never arrived, NaN for what was not measured.
    """
    rows = []
    for run in runs.to_dict("records"):
        path = campaign_dir / "runs" / run["run"] / "verdict.json"
        for slo in _read(path).get("slos", ()):
            if not isinstance(slo, dict) or not {"key", "limit", "passed"} <= set(slo):
                raise SettingError(f"{path}: an objective is {slo!r}; {_REMEDY}")
            known = verdict.SLOS.get(slo["key"])
            rows.append(
                {
                    "run": run["run"],
                    "level": run["level"],
                    "valid": bool(run["valid"]),
                    "key": slo["key"],
                    "name": known.name if known else slo.get("name", slo["key"]),
                    "unit": known.unit if known else slo.get("unit", ""),
                    "figure": _figure(slo.get("figure")),
                    "limit": float(slo["limit"]),
                    "at_least": bool(slo.get("at_least")),
                    "passed": bool(slo["passed"]),
                }
            )
    names = ["run", "level", "valid", "key", "name", "unit", "figure", "limit", "at_least", "passed"]
    return pd.DataFrame(rows, columns=names)


def by_level(objectives: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return a row per objective and level over its valid runs: `key, name, unit, limit, at_least, level, label,
    runs, missed, worst, median, passed`.

    It is passed where every valid run met it; `worst` is NaN if any run did not measure it.
    """
    valid = objectives[objectives["valid"].astype(bool)]
    rows = []
    for key, of_key in valid.groupby("key", sort=False):
        first = of_key.iloc[0]
        for level, label in zip(levels["level"], levels["label"], strict=True):
            ours = of_key[of_key["level"] == level]
            if ours.empty:
                continue
            worst = ours["figure"].min(skipna=False) if first["at_least"] else ours["figure"].max(skipna=False)
            rows.append(
                {
                    "key": key,
                    **{name: first[name] for name in ("name", "unit", "limit", "at_least")},
                    "level": level,
                    "label": label,
                    "runs": len(ours),
                    "missed": int((~ours["passed"]).sum()),
                    "worst": float(worst),
                    "median": float(ours["figure"].median()) if ours["figure"].notna().any() else math.nan,
                    "passed": bool(ours["passed"].all()),
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


_REMEDY = "restore the file, or take the run out of campaign.json's `runs` and sweep again: it is then repeated"


def _read(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"{path} is missing, cut off or damaged ({error}): {_REMEDY}") from error
    if not isinstance(value, dict):
        raise SettingError(f"{path} holds {type(value).__name__}: expected an object; {_REMEDY}")
    return value


def _figure(value: Any) -> float:
    if value is None:
        return math.nan
    return math.inf if value == "inf" else float(value)
