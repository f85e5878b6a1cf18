"""A campaign read back: campaign.json checked, and one row a finished run with every figure of its summary."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import SettingError

CAMPAIGN_KEYS: dict[str, type] = {"campaign": str, "design": dict, "order": list, "runs": list}
RUN_KEYS: dict[str, type] = {"index": int, "run": str, "block": int, "level": str, "factors": dict, "valid": bool}
"""What campaign.json must hold, and each of its runs: the rest is optional to a reader."""

COLUMNS = ("index", "run", "block", "level", "valid", "passed", "reasons", "started", "ended")


def about(campaign_dir: Path) -> dict[str, Any]:
    """Return campaign.json as it stands, checked.

    Raises SettingError naming the file, what is wrong with it and what to do, if it is missing, cut off or
    lacks a field.
    """
    path = campaign_dir / "campaign.json"
    if not path.exists():
        raise SettingError(
            f"{campaign_dir} is no campaign: it has no campaign.json. Give the directory of a sweep, such as "
            "reports/reference/capacity, or make one with: python -m experiments sweep DESIGN"
        )
    remedy = "take it from git or a copy, or sweep anew into another directory (the runs below it are untouched)"
    known = _object(path, remedy)
    _check(known, CAMPAIGN_KEYS, str(path), remedy)
    for position, row in enumerate(known["runs"]):
        place = f"{path}, runs[{position}]"
        if not isinstance(row, dict):
            raise SettingError(f"{place} is {row!r}: expected an object; {remedy}")
        _check(row, RUN_KEYS, place, remedy)
    return known


def runs(campaign_dir: Path) -> pd.DataFrame:
    """Return one row a finished run, in the order that really happened: COLUMNS, the level's factors as
    `factor_<name>`, and every key of the run's summary.json.

    `valid` and `passed` are those of the campaign, which judges by its design's objectives. In the figures
    null is NaN and "inf" is +inf. A campaign of which nothing is finished gives no rows. Raises SettingError
    naming the file for what `about` refuses, and for a run whose summary.json is missing or cut off.
    """
    rows = []
    for row in about(campaign_dir)["runs"]:
        summary = _summary(campaign_dir / "runs" / row["run"])
        of_run = {name: row.get(name) for name in COLUMNS}
        of_run["passed"] = bool(row.get("passed"))
        of_run["reasons"] = list(row.get("reasons") or ())
        factors = {f"factor_{name}": value for name, value in row["factors"].items()}
        rows.append({**of_run, **factors, **{key: value for key, value in summary.items() if key not in of_run}})
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=list(COLUMNS))


def factors(table: pd.DataFrame) -> list[str]:
    """Return the names of the factors that `runs` found, in the design's order."""
    return [str(name).removeprefix("factor_") for name in table.columns if str(name).startswith("factor_")]


def _summary(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "summary.json"
    remedy = "restore the file, or take the run out of campaign.json's `runs` and sweep again: it is then repeated"
    if not path.exists():
        raise SettingError(f"campaign.json counts run {run_dir.name} as finished, but {path} is missing: {remedy}")
    return {key: _figure(value) for key, value in _object(path, remedy).items()}


def _figure(value: Any) -> Any:
    if value is None:
        return math.nan
    return math.inf if value == "inf" else value


def _object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise SettingError(f"{path} is cut off or damaged ({error}): {remedy}") from error
    if not isinstance(value, dict):
        raise SettingError(f"{path} holds {type(value).__name__}: expected an object; {remedy}")
    return value


def _check(known: Mapping[str, Any], needed: Mapping[str, type], place: str, remedy: str) -> None:
    for name, kind in needed.items():
        if name not in known:
            raise SettingError(f"{place} lacks {name!r}: {remedy}")
        if not isinstance(known[name], kind):
            raise SettingError(f"{place}: {name} is {known[name]!r}: expected {kind.__name__}; {remedy}")
