"""Carries out a campaign that asks what limits the chain, or what CPU a load needs; it resumes where it was cut off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import files
from experiments.campaign import design_file
from experiments.campaign.design import Design
from experiments.campaign.report import capacity
from experiments.campaign.sweep import sweep
from experiments.limits import demand, page
from experiments.limits.plan import planned
from pipeline.errors import SettingError

DESIGN_FILE = "design.yaml"


def limits(
    design_path: Path,
    directory: Path,
    *,
    load: float | None = None,
    capacity_dir: Path | None = None,
    share: float | None = None,
    blocks: int | None = None,
    stages: Sequence[str] | None = None,
) -> Path:
    """Carry out the design with these changes in `directory`; return the path of its page.

    The load is `load`, or the estimate of the finished search in `capacity_dir`, or the design's. Raises SettingError
    for a wrong option or design, or if `directory` has a campaign with others; EmoStreamError as `sweep` does, or if
    nothing can be said because every run lost half of its reactions.
    """
    if load is None and capacity_dir is not None:
        load = estimated(capacity_dir)
    design = planned(design_file.load(design_path), load=load, share=share, blocks=blocks, stages=stages)
    _sweep(design, directory)
    return page.write(directory)


def demanded(design_path: Path, directory: Path, *, load: float | None = None, blocks: int | None = None) -> Path:
    """Carry out the design, which varies the chain's cores, in `directory`; return the path of its page.

    Raises as `limits` does.
    """
    design = demand.planned(design_file.load(design_path), load=load, blocks=blocks)
    _sweep(design, directory)
    return demand.write(directory)


def _sweep(design: Design, directory: Path) -> None:
    text, path = design_file.to_yaml(design), directory / DESIGN_FILE
    design_file.parse(text, str(path))
    if path.exists() and path.read_text(encoding="utf-8") != text:
        raise SettingError(
            f"{directory} was started with other options or another design: give the same, or a new name with "
            "--campaign"
        )
    with files.writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
    sweep(path, directory.parent, directory.name)


def estimated(capacity_dir: Path) -> float:
    """Return the capacity that the search in `capacity_dir` found, with three digits.

    Raises SettingError if it has no estimate, or is not of reactions per second; RunFileError for a damaged file.
    """
    estimate = capacity.read(capacity_dir).estimate_per_s
    if estimate is None:
        raise SettingError(
            f"--capacity is {str(capacity_dir)!r}, which has no estimate in reactions per second: give a finished "
            "search for rate_per_s, or a load with --load"
        )
    return float(f"{estimate:.3g}")
