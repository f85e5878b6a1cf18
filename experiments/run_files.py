"""The JSON files that a run leaves: one type and one reader for each, so that a damaged file has one message.

`campaign.json` is read the same way by campaign.campaign_file. A message names the file, what is wrong with it, and
the remedy, whichever command met it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from pipeline.errors import EmoStreamError
from pipeline.text_encoding import UTF8_BOM, not_utf8

T = TypeVar("T")
Figure = float | Literal["inf"] | None
"""A figure as JSON has it: null where it was not measured, "inf" where something never arrived."""

REMEDY = (
    "restore it from git or a copy, or remove the run's directory and measure again; in a campaign, remove the run "
    "from `runs` in campaign.json as well, then sweep again"
)


class RunFileError(EmoStreamError):
    """A file of a run or a campaign is missing, cut off, damaged or incomplete."""


class FrameFile(msgspec.Struct, frozen=True):
    """One frame's file as the run left it."""

    rows: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What manifest.json must hold: the parameters of the run. What it holds besides is optional to a reader."""

    parameters: dict[str, Any]
    commit: str | None = None
    dirty: bool | None = None
    frames: dict[str, FrameFile] = {}
    cpu: str | None = None
    cores: int | None = None
    kernel: str | None = None
    versions: dict[str, str | int | float | None] = {}
    clock_samples: list[tuple[int, int]] = []
    other_run: bool = False
    ready_s: float | None = None


class Objective(msgspec.Struct, frozen=True):
    """One objective of verdict.json, and how it went; `figure` is None where it was not measured."""

    key: str
    limit: float
    passed: bool
    figure: Figure = None
    name: str = ""
    unit: str = ""
    at_least: bool = False

    @property
    def measured(self) -> float:
        """The figure as a number: +inf for what never arrived, NaN for what was not measured."""
        return float(number(self.figure))


class Verdict(msgspec.Struct, frozen=True):
    """What verdict.json holds."""

    verdict: Literal["VALID", "INVALID", "UNSTEADY"]
    passed: bool
    reasons: list[str]
    slos: list[Objective] = []

    @property
    def valid(self) -> bool:
        """Whether the figures of the run may be quoted."""
        return self.verdict == "VALID"

    @property
    def unsteady(self) -> bool:
        """Whether something changed during the measurement of a run that is not INVALID."""
        return self.verdict == "UNSTEADY"


class Summary(msgspec.Struct, frozen=True):
    """What summary.json must hold. It may hold the texts at the end; all else in it are figures."""

    valid: bool
    passed: bool
    reasons: list[str]
    slos: dict[str, bool]
    planned: int
    accepted: int
    counted: int
    lost: int
    duplicated: int
    altered: int
    oracle_cells: int
    oracle_equal: int
    deliveries_due: int
    deliveries_missing: int
    deliveries_duplicate: int
    reactions_measured: int
    undelivered: int
    negative: int
    batches: int
    e2e_p50_s: Figure
    e2e_p99_s: Figure
    e2e_excess_p50_s: Figure
    e2e_excess_p99_s: Figure
    floor_p50_s: Figure
    floor_p99_s: Figure
    batch_p50_s: Figure
    batch_p95_s: Figure
    headroom: Figure
    loop: str = "open"
    unsteady: bool = False
    steady: bool | None = None
    steady_why: str = ""
    warm_up_settled: bool | None = None
    # Of the protocol's first edition, which judged nothing by them.
    warm_up_steady: bool | None = None
    warm_up_why: str = ""
    subscribers_at_fault: str = ""


def manifest(run_dir: Path) -> dict[str, Any]:
    """Return the manifest of the run in `run_dir`, all of its keys. Raises RunFileError."""
    return _whole(run_dir / "manifest.json", Manifest)


def verdict(run_dir: Path) -> Verdict:
    """Return the verdict of the run in `run_dir`. Raises RunFileError."""
    return decoded(run_dir / "verdict.json", Verdict, REMEDY)


def summary(run_dir: Path) -> dict[str, Any]:
    """Return the figures of the run in `run_dir`: null is NaN and "inf" is +inf. Raises RunFileError."""
    path = run_dir / "summary.json"
    values = _whole(path, Summary)
    for key, value in values.items():
        figure = value in (None, "inf") or (isinstance(value, int | float) and not isinstance(value, bool))
        if key not in Summary.__struct_fields__ and not figure:
            raise damaged(path, f'is damaged at `{key}`: expected a number, null or "inf"')
    return {key: number(value) for key, value in values.items()}


def outcome(*, valid: bool, unsteady: bool, passed: bool) -> str:
    """Return how a run went, in the words of a terminal."""
    if valid:
        return "passed" if passed else "missed an objective"
    return "UNSTEADY" if unsteady else "INVALID"


def number(value: Any) -> Any:
    """Return a figure of strict JSON as a number, any other value as it is."""
    if value is None:
        return math.nan
    return math.inf if value == "inf" else value


def decoded(path: Path, kind: type[T], remedy: str, upgrade: Callable[[Any], Any] | None = None) -> T:
    """Return the JSON in `path` as a `kind`. Raises RunFileError naming the file, what is wrong and the `remedy`.

    `upgrade` brings what an earlier version wrote into today's form; it must return anything else as it is.
    People may have edited the file, so that a byte order mark is ignored, and another encoding is named.
    """
    content = raw(path, remedy)
    try:
        text = content.removeprefix(UTF8_BOM)
        return (
            msgspec.convert(upgrade(msgspec.json.decode(text)), kind)
            if upgrade
            else msgspec.json.decode(text, type=kind)
        )
    except (ValueError, RecursionError) as error:
        wrong = not_utf8(content)
        raise damaged(path, f"is not text in UTF-8 ({wrong})" if wrong else _fault(error), remedy) from error


def raw(path: Path, remedy: str = REMEDY) -> bytes:
    """Return the bytes of a file. Raises RunFileError if it is missing, empty or cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise damaged(path, "is missing", remedy) from None
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror or error})", remedy) from error
    if not content.strip():
        raise damaged(path, "is empty", remedy)
    return content


def damaged(path: Path, fault: str, remedy: str = REMEDY) -> RunFileError:
    """Return the error for a file that has a `fault`, such as "is missing"."""
    return RunFileError(f"{path} {fault}: {remedy}")


def _whole(path: Path, kind: type[Any]) -> dict[str, Any]:
    """Return every key of the object in `path`, after a check of those that `kind` names."""
    decoded(path, kind, REMEDY)
    values: Mapping[str, Any] = decoded(path, dict[str, Any], REMEDY)
    return dict(values)


def _fault(error: Exception) -> str:
    """Return the fault that msgspec found: not valid JSON, or a key that is missing or wrong."""
    if not isinstance(error, msgspec.ValidationError):
        return f"is cut off or damaged ({error})"
    text, _, at = str(error).partition(" - at `$")
    place = at.rstrip("`").lstrip(".")
    lacking = re.fullmatch(r"Object missing required field `(.+)`", text)
    if lacking:
        return f"lacks `{f'{place}.' if place else ''}{lacking.group(1)}`"
    return f"is damaged{f' at `{place}`' if place else ''}: {text[:1].lower()}{text[1:]}"
