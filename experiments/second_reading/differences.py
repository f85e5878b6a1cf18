"""Compare a run's summary with its second reading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from experiments import run_files
from experiments.second_reading.reading import Figures, read, read_frames

RELATIVE = 1e-9
"""Two figures are equal if they differ by this share of the larger one, or of 1: both readings sum in their own order,
and a figure near zero is often the difference of larger ones. So counts up to a billion must be equal exactly."""

NO_SECOND_READING = {
    "reasons": "sentences; each is judged by its figure, and `valid` is whether there are any",
    "steady_why": "sentences; `steady` and its shifts are the figures behind them",
}
"""The keys of a summary that are not read a second time, and why."""


def differences(run_dir: Path, summary: Mapping[str, Any] | None = None) -> list[str]:
    """Return a sentence for each figure of `summary` (by default the run's summary.json) that differs.

    Raises RunFileError as `reading.read` does.
    """
    given = run_files.summary(run_dir) if summary is None else summary
    return compared(given, read(run_dir))


def frame_differences(
    frames: Mapping[str, pd.DataFrame],
    parameters: Mapping[str, Any],
    manifest: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> list[str]:
    """Return a sentence for each figure of `summary` that differs from those of the frames in memory.

    Raises SecondReadingError as `reading.read_frames` does.
    """
    return compared(summary, read_frames(frames, parameters, manifest))


def compared(summary: Mapping[str, Any], second: Figures) -> list[str]:
    """Return a sentence for each figure that differs, or that one of the two readings lacks, in order of the keys."""
    first = flat(summary)
    found = []
    for key in sorted({*first, *second}):
        if key not in second:
            found.append(f"{key}: the summary has {first[key]!r}, and there is no second reading of it")
        elif key not in first:
            found.append(f"{key}: the summary lacks it, and the second reading is {second[key]!r}")
        elif not equal(first[key], second[key]):
            found.append(f"{key}: the summary has {first[key]!r}, and the second reading is {second[key]!r}")
    return found


def flat(summary: Mapping[str, Any]) -> Figures:
    """Return the figures of a summary that have a second reading, as `reading.Figures` has them."""
    whole = {**summary, **{f"slos.{key}": met for key, met in (summary.get("slos") or {}).items()}}
    numbers = {key: run_files.number(value) for key, value in whole.items() if key not in {"slos", *NO_SECOND_READING}}
    return {key: value if isinstance(value, str) else float(value) for key, value in numbers.items()}


def equal(a: float | str, b: float | str) -> bool:
    """Return whether two figures are equal, to RELATIVE; NaN, which was not measured, equals NaN."""
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return a == b or (math.isnan(a) and math.isnan(b)) or abs(a - b) <= RELATIVE * max(abs(a), abs(b), 1.0) < math.inf
