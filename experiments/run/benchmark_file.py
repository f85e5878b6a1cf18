"""The file of a benchmark's figures, with the machine that they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import files
from experiments.machine.facts import machine
from experiments.report import pages
from experiments.repository import ROOT
from experiments.run.code_state import code_state


def write(folder: Path, name: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Write `figures` with the `machine` they are of, and the commit, to `folder`/`name`.json; return what is written.

    Raises EmoStreamError naming the file if it cannot be written.
    """
    about = {**machine(), **code_state(ROOT)}
    document = {**figures, "machine": {key: about[key] for key in ("cpu", "cores", "kernel", "commit")}}
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    pages.write_json(folder / f"{name}.json", document)
    return document
