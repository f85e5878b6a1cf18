"""Keep a finished campaign in the repository, with its rows, so that anyone can compute its figures again."""

from __future__ import annotations

import getpass
import json
import platform
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import files, ledger, run_files
from experiments.campaign import campaign_file, crate, kept_rows, reanalyse
from experiments.campaign.campaign_file import State
from experiments.campaign.report import page
from experiments.progress import Progress
from experiments.report.pages import strict_json
from experiments.repository import ROOT
from experiments.run import manifest as manifests
from pipeline.errors import SettingError

FOLDER = "reference"
"""The folder of the reports in which campaigns are kept."""
SUMS = "SHA256SUMS"
"""The SHA-256 of each file of a kept campaign, as `sha256sum --check` reads it."""
SUMS_REMEDY = "restore it from git"
BYTES_MAX = 40_000_000
"""What all kept campaigns together may take in the repository."""
HISTOGRAMS = ("latency.hdr", "excess.hdr")
# A path begins a word or follows =, a quotation mark or a bracket; `reactions/s` and `https://…` are none.
_PATH = re.compile(r"(?<![\w./~<)])(?:~|\.\.(?:/\.\.)*)?/(?!/)(?:[\w.@+~-]+/)*([\w.@+~-]+)/?")


def keep(directory: Path, reports: Path, name: str = "", budget: int = BYTES_MAX) -> Path:
    """Copy the finished campaign in `directory` into the kept campaigns of `reports`; return its new directory.

    Each frame is compared with the hash that its run left; then the analysis of the rows that were kept must give the
    run's summary. Raises SettingError for a campaign that is unfinished, kept already or too large, RunFileError
    naming a file that is missing, damaged or different. Nothing is kept then.

    Of a campaign that is kept already, `directory` itself, the page, the crate and the hashes are written again: what a
    page says of the same rows may have changed.
    """
    state = campaign_file.read(directory)
    if directory.resolve().parent == (reports / FOLDER).resolve() and not name:
        check(directory)
        _describe(directory, state)
        return directory
    if state.ended is None or state.underway is not None:
        raise SettingError(f"campaign {directory} is not finished: finish it with emostream sweep, then keep it")
    if not state.runs:
        raise SettingError(f"campaign {directory} has no finished run: sweep its design again")
    kept = reports / FOLDER / (name or directory.name)
    if kept.exists():
        raise SettingError(f"{kept} is there: give another name with --name, or remove that campaign from git first")
    with files.writing(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".keep-", dir=kept.parent))
    try:
        _write(directory, state, beside / kept.name, budget)
        with files.writing(kept):
            (beside / kept.name).replace(kept)
    finally:
        shutil.rmtree(beside)
    return kept


def all_kept(reports: Path) -> list[Path]:
    """Return the directories of the kept campaigns, in order of their names."""
    return sorted(path.parent for path in (reports / FOLDER).glob(f"*/{campaign_file.NAME}"))


def check(kept: Path) -> dict[str, str]:
    """Compare every file of a kept campaign with its hash; return the hashes by path.

    Raises RunFileError naming a file that is missing, not listed, or different.
    """
    path = kept / SUMS
    sums = {}
    for line in run_files.raw(path, SUMS_REMEDY).decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", digest) or not name:
            raise run_files.damaged(path, f"has the line {line!r} (expected a SHA-256 and a file)", SUMS_REMEDY)
        sums[name] = digest
    for name, digest in sums.items():
        if not (kept / name).is_file():
            raise run_files.damaged(kept / name, "is missing", SUMS_REMEDY)
        if files.sha256(kept / name) != digest:
            raise run_files.damaged(kept / name, f"has another SHA-256 than {SUMS} names", SUMS_REMEDY)
    return sums


def check_summary(run_dir: Path) -> dict[str, Any]:
    """Analyse the rows of the run in `run_dir` again; return its figures, as summary.json has them.

    Raises RunFileError as reanalyse.analysed does, and naming the figures in which summary.json differs.
    """
    analysis, _ = reanalyse.analysed(run_dir)
    again: dict[str, Any] = json.loads(strict_json(analysis.summary))
    run_files.summary(run_dir)
    there: dict[str, Any] = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    differing = sorted(key for key in {*again, *there} if again.get(key, key) != there.get(key, key))
    if differing:
        key = differing[0]
        raise run_files.damaged(
            run_dir / "summary.json",
            f"differs from the rows in {', '.join(differing)}: {key} is {there.get(key)}, the rows give "
            f"{again.get(key)}",
            "if the analysis has changed since the run, write its report again with: emostream report",
        )
    return again


def _write(directory: Path, state: State, kept: Path, budget: int) -> None:
    with Progress(len(state.runs) * reanalyse.RUN_S) as progress:
        sizes = {}
        for number, run in enumerate(state.runs, 1):
            progress.begin(f"run {number}/{len(state.runs)}: {run.run}", reanalyse.RUN_S)
            sizes[run.run] = _keep_run(directory / "runs" / run.run, kept / "runs" / run.run)
            _check_size(kept, sizes, budget)
    _write_text(kept / campaign_file.NAME, (directory / campaign_file.NAME).read_text(encoding="utf-8"))
    campaign_file.read(kept)
    _describe(kept, state)
    _check_size(kept, sizes, budget)


def _describe(kept: Path, state: State) -> None:
    """Write the page of a kept campaign, its crate and its hashes."""
    page.write(kept)
    # The crate lists every file but this one, which has the crate's hash.
    (kept / SUMS).unlink(missing_ok=True)
    crate.write(kept, state, [run_files.manifest(kept / "runs" / run.run) for run in state.runs])
    _check_names(kept)
    sums = [
        f"{files.sha256(path)}  {path.relative_to(kept).as_posix()}\n"
        for path in sorted(kept.rglob("*"))
        if path.is_file()
    ]
    files.write_text(kept / SUMS, "".join(sums))


def _keep_run(run_dir: Path, kept: Path) -> int:
    """Keep one run; return its bytes."""
    about = run_files.manifest(run_dir)
    if set(about.get("frames", {})) != set(ledger.COLUMNS):
        raise run_files.damaged(
            run_dir / "manifest.json",
            "has no SHA-256 of each frame",
            "the run was made by an earlier version: sweep the design again, and keep that campaign",
        )
    frames = reanalyse.frames(run_dir, about)
    rows, needed = kept_rows.packed(frames, about["parameters"])
    with files.writing(kept):
        (kept / "summary").mkdir(parents=True)
    for name, frame in rows.items():
        kept_rows.write(frame, kept / f"{name}.parquet")
    for name in ("verdict.json", "summary.json", *(f"summary/{name}" for name in HISTOGRAMS)):
        _write_text(kept / name, run_files.raw(run_dir / name).decode("utf-8"))
    left = {"kept": needed, "frames": manifests.frames(kept, rows), "frames_as_measured": about["frames"]}
    _write_text(kept / "manifest.json", json.dumps({**about, **left}, indent=1, ensure_ascii=False) + "\n")
    check_summary(kept)
    return sum(path.stat().st_size for path in kept.rglob("*") if path.is_file())


def without_paths(text: str) -> str:
    """Return `text` with each absolute path cut down to its last name: `…/name`."""
    return _PATH.sub(lambda match: f"…/{match.group(1)}", text)


def _write_text(path: Path, text: str) -> None:
    # Histograms are in base64, which has slashes.
    files.write_text(path, text if path.suffix == ".hdr" else without_paths(text))


def _check_names(kept: Path) -> None:
    """Raise RunFileError naming a file that holds a name of this machine, its user's home or a temporary folder."""
    private = {platform.node(), str(ROOT), str(Path.home()), tempfile.gettempdir(), f"/{getpass.getuser()}/"}
    for path in sorted(kept.rglob("*")):
        if path.suffix in (".json", ".html", ".csv", ".svg"):
            text = path.read_text(encoding="utf-8")
            for name in sorted(private - {"", "/", "localhost"}):
                if re.search(rf"(?<![\w.…-]){re.escape(name)}(?![\w-])", text):
                    raise run_files.damaged(
                        path, f"holds {name!r}, a name of this machine", "remove it from the campaign's file, then keep"
                    )


def _check_size(kept: Path, sizes: Mapping[str, int], budget: int) -> None:
    """Raise SettingError if the kept campaigns and this one take more than the budget."""
    others = {
        path.parent.name: sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
        for path in kept.parent.parent.glob(f"*/{campaign_file.NAME}")
    }
    own = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
    if own + sum(others.values()) > budget:
        listed = "; ".join(
            [f"{name} {_mb(size)}" for name, size in others.items()]
            + [f"run {name} {_mb(size)}" for name, size in sizes.items()]
        )
        raise SettingError(
            f"the kept campaigns would take more than {_mb(budget)} ({listed}): sweep with fewer blocks, probes or "
            "measured_triggers, or remove a kept campaign"
        )


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
