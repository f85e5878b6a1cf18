"""What `second-reading` prints: of each run, how many figures there are and which differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from experiments import run_files
from experiments.second_reading.differences import compared, flat
from experiments.second_reading.reading import Figures, SecondReadingError, read

HEADINGS = ("run", "figures", "equal", "differing")


class Check(NamedTuple):
    """The name of a run, the number of its figures, and a sentence for each that differs."""

    run: str
    figures: int
    differing: list[str]


def check(run_dir: Path, second: Figures | None = None) -> Check:
    """Return the comparison of the run's summary.json with `second`, by default its own second reading.

    Raises RunFileError.
    """
    summary, second = run_files.summary(run_dir), read(run_dir) if second is None else second
    return Check(run_dir.name, len({*flat(summary), *second}), compared(summary, second))


def runs(directories: Iterable[Path], *, whole_campaigns: bool) -> list[Path]:
    """Return the directories of runs: those given or, with `whole_campaigns`, each run below them that has rows.

    Raises SecondReadingError for a campaign where a run is expected, the reverse, and a campaign without rows.
    """
    found: list[Path] = []
    for directory in (each.resolve() for each in directories):
        if not directory.is_dir():
            raise SecondReadingError(
                f"there is no directory {directory}: give that of a run, or of a campaign and --all"
            )
        campaign = (directory / "runs").is_dir()
        if not whole_campaigns:
            if campaign:
                raise SecondReadingError(f"{directory} is a campaign: add --all to read each of its runs")
            found.append(directory)
            continue
        kept = sorted({path.parent for path in directory.glob("runs/*/*.parquet")})
        if not kept:
            fault = "has no run whose rows are kept" if campaign else "is not a campaign"
            raise SecondReadingError(
                f"{directory} {fault}: give the directory of a campaign with rows, or leave --all out"
            )
        found += kept
    return found


def table(checks: Sequence[Check]) -> str:
    """Return the comparisons as lines of text: a table of HEADINGS, then each figure that differs."""
    rows = [
        HEADINGS,
        *(
            (each.run, str(each.figures), str(each.figures - len(each.differing)), str(len(each.differing)))
            for each in checks
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    named = [f"{each.run}: {sentence}" for each in checks for sentence in each.differing]
    return "\n".join([*lines, *([""] if named else []), *named])
