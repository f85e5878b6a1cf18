"""Designs from their YAML files, checked before anything runs: an error points at its line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import yaml

from experiments import parameters
from experiments.analysis import verdict
from experiments.campaign.design import Design, Value, level_name
from experiments.load import plan
from experiments.load.schedule import BURST_NS
from experiments.parameters import Parameters
from experiments.repository import DESIGNS, NOTEBOOKS, ROOT
from experiments.run import notebook
from experiments.units import NS_PER_S
from pipeline.errors import SettingError
from pipeline.settings import build

# The most that is rehearsed of each phase of a long plan.
REHEARSED_REACTIONS = 50_000
REHEARSED_S = BURST_NS / NS_PER_S


def named() -> list[str]:
    """Return the names of the designs that come with the project."""
    return sorted(path.stem for path in DESIGNS.glob("*.yaml"))


def notebook_path(design: Design) -> Path:
    """Return the notebook that carries out a run of `design`."""
    return NOTEBOOKS / f"{design.notebook}.ipynb"


def load(path: Path) -> Design:
    """Read and check a design. Raises SettingError naming file, line, field, the value seen and the remedy."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingError(
            f"design {path} cannot be read ({error.strerror}): give the path of a YAML file, such as one of "
            + ", ".join(f"experiments/designs/{name}.yaml" for name in named())
        ) from error
    return parse(text, str(path))


def parse(text: str, where: str) -> Design:
    """Return the design in `text`; errors name `where`. Raises SettingError as `load` does."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise SettingError(f"{where}{line} is not valid YAML: {error.problem or error.context}") from error
    if not isinstance(raw, dict):
        raise SettingError(f"{where} holds {type(raw).__name__}, not a mapping: start with `name:` and `about:`")
    assert node is not None
    lines = _Lines(where, node)
    _refuse_twice(lines, node)
    try:
        design = msgspec.convert(raw, Design)
    except msgspec.ValidationError as error:
        reason, _, at = str(error).partition(" - at `$")
        path = _path(at.rstrip("`"))
        raise lines.error(path, f"{_seen(raw, path)}{_in_words(reason)}") from error
    _check(design, lines)
    return design


class _Lines:
    """The line of each field of a design in its file."""

    def __init__(self, where: str, node: yaml.Node) -> None:
        self._where = where
        self._node = node

    def error(self, path: Sequence[str | int], text: str, at: int | None = None) -> SettingError:
        """Return the error for the field at `path`; `at` is its line, if not the first of that name."""
        line, node = 1, self._node
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        name = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
        return SettingError(f"{self._where}, line {at or line}{f', field {name}' if name else ''}: {text}")


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line + 1, value
    return None


def _path(text: str) -> list[str | int]:
    """`.levels[2]` to ["levels", 2]. The key of a mapping's value is left out, as msgspec does not name it."""
    return [int(number) if number else name for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", text)]


def _seen(raw: Any, path: Sequence[str | int]) -> str:
    for step in path:
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return ""
    return f"it is {raw!r}; " if path else ""


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
    (r"Expected `str`, got .*", "give text"),
    (r"Expected `array`, got .*", "give a list"),
    (r"Expected `object`.*, got .*", "give a mapping"),
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


def _refuse_twice(lines: _Lines, node: yaml.Node, path: tuple[str | int, ...] = ()) -> None:
    """Refuse a key that is given twice: YAML silently keeps the last one."""
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if key.value in names:
                raise lines.error((*path, key.value), "it is given twice: remove one", key.start_mark.line + 1)
            names.add(key.value)
            _refuse_twice(lines, value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _refuse_twice(lines, value, (*path, index))


def _check(design: Design, lines: _Lines) -> None:
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
    if design.search is not None and design.search.most < design.search.start:
        raise lines.error(("search", "most"), f"it is {design.search.most:g}, less than start: give more than start")
    seen: dict[str, int] = {}
    for index, level in enumerate(design.levels):
        blocks = level.get("blocks", design.blocks)
        if not isinstance(blocks, int) or isinstance(blocks, bool) or blocks < 1:
            raise lines.error(("levels", index, "blocks"), f"it is {blocks!r}; give a whole number from 1")
        factors = {name: value for name, value in level.items() if name != "blocks"}
        if level_name(factors) in seen:
            raise lines.error(("levels", index), f"it is level {seen[level_name(factors)]} again: remove one")
        seen[level_name(factors)] = index
        if set(factors) != set(design.factors):
            missing = sorted(set(design.factors) - set(factors))
            raise lines.error(("levels", index), f"it lacks {', '.join(missing)}: every level names every factor")
        _check_run(design, lines, factors, ("levels", index))
    if design.search is not None:
        for end in ("start", "most"):
            _check_run(design, lines, {design.search.factor: getattr(design.search, end)}, ("search", end))


def _names(design: Design) -> Iterator[tuple[tuple[str | int, ...], str]]:
    yield from ((("parameters", name), name) for name in design.parameters)
    if design.search is not None:
        yield ("search", "factor"), design.search.factor
    for index, level in enumerate(design.levels):
        yield from ((("levels", index, name), name) for name in level if name != "blocks")


def _check_run(design: Design, lines: _Lines, factors: Mapping[str, Value], path: tuple[str | int, ...]) -> None:
    """Rehearse a run: build its parameters, settings and plan, and cast them as the notebook will."""
    given = design.given(factors, design.seed)
    names = list(given)
    try:
        notebook.checked(notebook_path(design), {name: str(value) for name, value in given.items()})
        run = parameters.checked(given)
        build(run.of_chain())
        # Each value alone is valid; if they do not fit together, the level's own values are to change.
        names = [*factors, *given]
        if run.loop == "open":
            plan.plan_of(_rehearsed(run), 0)
    except SettingError as error:
        culprit = next((name for name in names if f" {name} " in f" {error} "), "")
        if culprit in factors and design.search is None:
            path = (*path, culprit)
        elif culprit in design.parameters:
            path = ("parameters", culprit)
        raise lines.error(path, str(error)) from error


def _rehearsed(run: Parameters) -> Parameters:
    """Return `run` for the rehearsal of its plan: shortened if it is long, and with the path that the notebook opens.

    A recording is checked as a whole. For any other load, length matters only if it has hardly a reaction, or no room
    for a burst.
    """
    if run.arrivals == "trace":
        return replace(run, trace=str(ROOT / run.trace) if run.trace else "")
    enough = math.ceil(max(REHEARSED_S, REHEARSED_REACTIONS / run.rate_per_s) / run.trigger_s)
    return replace(
        run,
        warm_up_triggers=min(run.warm_up_triggers, enough),
        measured_triggers=min(run.measured_triggers, enough),
    )
