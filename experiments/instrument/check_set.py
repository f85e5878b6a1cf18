"""The check set: runs with known rows, their second reading, and what a first reading makes of them.

It runs in a copy of the package with a mutation in it; the runs and their second reading come from the true package.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.analysis.analyse import analyse
from experiments.second_reading import differences


@dataclass(frozen=True)
class Case:
    """A run: its frames, parameters and manifest, and the figures of its second reading."""

    name: str
    frames: dict[str, pd.DataFrame]
    parameters: dict[str, Any]
    manifest: dict[str, Any]
    second: dict[str, float | str]


def found(cases: Iterable[Case]) -> list[str]:
    """Return the keys of the figures that differ in any of the cases, and `raised ERROR` if the analysis failed."""
    names: dict[str, None] = {}
    for case in cases:
        try:
            summary = analyse(case.frames, case.parameters, case.manifest).summary
        except Exception as error:
            names[f"raised {type(error).__name__}"] = None
            continue
        names |= {sentence.partition(":")[0]: None for sentence in differences.compared(summary, case.second)}
    return list(names)


def write(case: Case, folder: Path) -> None:
    """Write a case for `read`."""
    (folder / f"{case.name}.pickle").write_bytes(pickle.dumps(vars(case)))


def read(name: str, folder: Path) -> Case:
    """Return a case that `write` left."""
    return Case(**pickle.loads((folder / f"{name}.pickle").read_bytes()))
