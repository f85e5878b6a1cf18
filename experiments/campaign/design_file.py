"""Designs from their YAML files, checked before anything runs: an error points at its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from experiments import parameters, text_files
from experiments.analysis import verdict
from experiments.campaign import strict_yaml
from experiments.campaign.design import DOUBLED, Design, SearchSpec, Value, confounded, level_name
from experiments.campaign.strict_yaml import Lines, shown
from experiments.repository import DESIGNS, NOTEBOOKS, ROOT
from experiments.run import notebook
from experiments.run.rehearsal import rehearse
from experiments.stats.capacity import FEWEST_PROBES
from experiments.stats.paired import FEWEST_BLOCKS
from pipeline.errors import SettingError, plain_reason


def named() -> list[str]:
    """Return the names of the designs that come with the project."""
    return sorted(path.stem for path in DESIGNS.glob("*.yaml"))


def notebook_path(design: Design) -> Path:
    """Return the notebook that carries out a run of `design`."""
    return NOTEBOOKS / f"{design.notebook}.ipynb"


def load(path: Path) -> Design:
    """Read and check a design. Raises SettingError naming file, line, field, the value seen and the remedy."""
    return parse(_text(path), str(path))


def parse(text: str, where: str) -> Design:
    """Return the design in `text`; errors name `where`. Raises SettingError as `load` does."""
    design, lines = _converted(text, where)
    _check(design, lines)
    return design


def to_yaml(design: Design) -> str:
    """Return the text of a design file that holds `design`; what is empty is left out."""
    values = {name: value for name, value in msgspec.to_builtins(design).items() if value not in (None, {}, [])}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def unrehearsed(path: Path) -> Design:
    """Return the design at `path` by its fields alone: no recording is read, and no run is rehearsed.

    Raises SettingError as `load` does.
    """
    return _converted(_text(path), str(path))[0]


def _text(path: Path) -> str:
    try:
        return text_files.read(path, "design")
    except OSError as error:
        raise SettingError(
            f"design {path} cannot be read ({plain_reason(error)}): give the path of a YAML file, or the name of a "
            f"design that comes with the project: {', '.join(named())}"
        ) from error


def _converted(text: str, where: str) -> tuple[Design, Lines]:
    raw, lines = strict_yaml.read(text, where)
    if not isinstance(raw, dict):
        raise SettingError(f"{where} holds {shown(raw)}, not a mapping: start with `name:` and `about:`")
    try:
        return msgspec.convert(raw, Design), lines
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$")
        path = _path(raw, reason, at.rstrip("`"))
        raise lines.error(path, f"{_seen(raw, path)}{_in_words(reason)}") from error


KINDS: dict[type, str] = {
    bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: "object", type(None): "null"
}  # fmt: skip
"""What msgspec calls the kinds of values."""


def _path(raw: Any, reason: str, at: str) -> list[str | int]:
    """`.levels[2]` to ["levels", 2]. msgspec does not name the key of a mapping's value: it is the first such value."""
    path = [int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", at)]
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", reason):
        return [*path, unknown[1]]
    if at.endswith("[...]"):
        got = reason.rpartition("got ")[2].strip("`")
        items = _at(raw, path).items()
        path += [name for name, value in items if KINDS.get(type(value)) == got][:1]
    return path


def _at(raw: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        raw = raw[step]
    return raw


def _seen(raw: Any, path: Sequence[str | int]) -> str:
    try:
        return f"it is {shown(_at(raw, path))}; " if path else ""
    except (KeyError, IndexError, TypeError):
        return ""


WORDS = (
    (r"Expected `str` matching regex .*", "give 1 to 60 letters, digits, '_' or '-'"),
    (r"Expected `int` >= (\S+)", r"give a whole number from \1"),
    (r"Expected `int` <= (\S+)", r"give a whole number of at most \1"),
    (r"Expected `float` > (\S+)", r"give a number above \1"),
    (r"Expected `float` >= (\S+)", r"give a number from \1"),
    (r"Expected `float` < (\S+)", r"give a number below \1"),
    (r"Expected `float` <= (\S+)", r"give a number of at most \1"),
    (r"Expected `int`, got .*", "give a whole number"),
    (r"Expected `float`, got .*", "give a number"),
    (r"Expected `bool`, got .*", "give true or false"),
    (r"Expected `str`, got .*", "give text"),
    (r"Expected `int \| float \| str`, got .*", "give a number or text"),
    (r"Expected `array`, got .*", "give a list"),
    (r"Expected `object.*`, got .*", "give a mapping"),
    (r"Object contains unknown field (`\w+`)", r"unknown field \1: remove it, or correct its name"),
    (r"Object missing required field (`\w+`)", r"the field \1 is missing: add it"),
)
"""The reasons that msgspec gives for an invalid design, and what to do about each."""


def _in_words(reason: str) -> str:
    for pattern, words in WORDS:
        matched = re.fullmatch(pattern, reason)
        if matched:
            return matched.expand(words)
    return f"{reason[:1].lower()}{reason[1:]}"


def _check(design: Design, lines: Lines) -> None:
    """Check what the types do not: names of parameters and objectives, and that every run can be built and its load
    planned.
    """
    known = set(parameters.PARAMETERS) - {"warm_up_triggers", "measured_triggers", "seed", "slos", "attach"}
    for path, name in _names(design):
        if name not in known:
            raise lines.error(path, f"there is no factor {name!r}: use one of {', '.join(sorted(known))}")
    for key in design.slos:
        if key not in verdict.SLOS:
            raise lines.error(("slos", key), f"there is no objective {key!r}: use one of {', '.join(verdict.SLOS)}")
    if not notebook_path(design).is_file():
        raise lines.error(("notebook",), f"there is no notebooks/{design.notebook}.ipynb: use 'run'")
    if bool(design.levels) == (design.search is not None):
        raise lines.error((), "give either `levels`, or `search` for a capacity")
    if design.search is not None:
        _check_search(design.search, lines)
        clash = sorted(DOUBLED.keys() & {design.search.factor, *design.parameters})
        if design.search.footprint and clash:
            raise lines.error(
                ("search", "footprint"), f"its probes set {clash[0]}, which the design sets too: remove one of them"
            )
    seen: dict[str, int] = {}
    for index, level in enumerate(design.levels):
        blocks = level.get("blocks", design.blocks)
        if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
            raise lines.error(("levels", index, "blocks"), f"it is {blocks!r}; give a whole number from 1")
        if design.intervals and blocks < FEWEST_BLOCKS:
            raise lines.error(
                ("levels", index, "blocks") if "blocks" in level else ("blocks",),
                f"blocks is {blocks}, and the design asks for intervals: give {FEWEST_BLOCKS} or more, or remove "
                "`intervals`; with fewer blocks no interval can be stated",
            )
        factors = {name: value for name, value in level.items() if name != "blocks"}
        if level_name(factors) in seen:
            raise lines.error(("levels", index), f"it is level {seen[level_name(factors)]} again: remove one")
        seen[level_name(factors)] = index
        if set(factors) != set(design.factors):
            missing = sorted(set(design.factors) - set(factors))
            raise lines.error(("levels", index), f"it lacks {', '.join(missing)}: every level names every factor")
        _check_run(design, lines, factors, ("levels", index))
    if design.levels:
        _check_factors(design, lines)
    if design.search is not None:
        for end in ("least", "most"):
            _check_run(design, lines, {design.search.factor: getattr(design.search, end)}, ("search", end))
        if design.search.footprint:
            _check_run(design, lines, {design.search.factor: design.search.least, **DOUBLED}, ("search", "footprint"))


def _check_factors(design: Design, lines: Lines) -> None:
    """Check that factors vary one at a time or crossed, but for those that the design names as one."""
    grouped: set[str] = set()
    for number, group in enumerate(design.together):
        for place, name in enumerate(group.factors):
            path = ("together", number, "factors", place)
            if name not in design.factors:
                raise lines.error(path, f"no level names {name!r}: use one of {', '.join(design.factors)}")
            if name in grouped:
                raise lines.error(path, f"{name!r} is named twice: a factor belongs to one group")
            grouped.add(name)
    if step := confounded(design):
        names = [" with ".join(axis) for axis in step.factors]
        all_names = ", ".join(name for axis in step.factors for name in axis)
        raise lines.error(
            ("levels", step.level),
            f"it differs from level {step.nearest}, the nearest, in {', '.join(names[:-1])} and {names[-1]} at once, "
            "so that their effects could not be told apart: vary one at a time or cross them, or name them as one "
            f"factor, `together: [{{factors: [{all_names}], why: REASON}}]`",
        )


def _check_search(search: SearchSpec, lines: Lines) -> None:
    if search.most < 1.1 * search.least:
        raise lines.error(
            ("search", "most"), f"it is {search.most:g}: give at least 1.1 times least ({1.1 * search.least:g})"
        )
    if 0 < search.footprint < FEWEST_PROBES:
        raise lines.error(
            ("search", "footprint"), f"it is {search.footprint}: give {FEWEST_PROBES} or more, or 0 for none"
        )
    if search.placement != "random":
        raise lines.error(("search", "placement"), "only campaigns of before have it: remove `placement`")


def _names(design: Design) -> Iterator[tuple[tuple[str | int, ...], str]]:
    yield from ((("parameters", name), name) for name in design.parameters)
    if design.search is not None:
        yield ("search", "factor"), design.search.factor
    for index, level in enumerate(design.levels):
        yield from ((("levels", index, name), name) for name in level if name != "blocks")


def _check_run(design: Design, lines: Lines, factors: Mapping[str, Value], path: tuple[str | int, ...]) -> None:
    """Rehearse a run: build its parameters, settings and plan, and cast them as the notebook will."""
    given = design.given(factors, design.seed)
    names = list(given)
    try:
        notebook.checked(notebook_path(design), {name: str(value) for name, value in given.items()})
        run = parameters.checked(given)
        # Each value alone is valid; if they do not fit together, the level's own values are to change.
        names = [*factors, *given]
        rehearse(run, ROOT)
    except SettingError as error:
        culprit = next((name for name in names if f" {name} " in f" {error} "), "")
        if culprit in factors and design.search is None:
            path = (*path, culprit)
        elif culprit in design.parameters:
            path = ("parameters", culprit)
        raise lines.error(path, str(error)) from error
