"""Outcomes of a suite that was cut off: the same command goes on after them, as long as the code is the same."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import files
from experiments.faults.carry_out import ScenarioOutcome


class Kept:
    """The outcomes in a file, and `of` what they are: others are thrown away. Safe for threads.

    Raises EmoStreamError naming the file if it cannot be written.
    """

    def __init__(self, path: Path, of: Mapping[str, Any]) -> None:
        self.path = path
        self._of = dict(of)
        self._lock = threading.Lock()
        self._outcomes: list[ScenarioOutcome] = []
        if path.exists() and (found := json.loads(path.read_text(encoding="utf-8")))["of"] == self._of:
            self._outcomes = [ScenarioOutcome(**each) for each in found["outcomes"]]

    def __len__(self) -> int:
        return len(self._outcomes)

    def outcomes(self, names: Sequence[str], seed: int) -> list[ScenarioOutcome]:
        """Return what is kept of these scenarios with this seed."""
        with self._lock:
            return [each for each in self._outcomes if each.name in names and each.seed == seed]

    def add(self, outcomes: Sequence[ScenarioOutcome]) -> None:
        """Keep further outcomes."""
        with self._lock:
            self._outcomes += outcomes
            kept = {"of": self._of, "outcomes": list(map(asdict, self._outcomes))}
            with files.writing(self.path.parent):
                self.path.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(self.path, json.dumps(kept))

    def forget(self) -> None:
        """Remove the file: the suite has come to its end."""
        self.path.unlink(missing_ok=True)
