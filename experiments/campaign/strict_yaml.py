"""YAML as people write it, read without guessing: an error names the file, the line and the field. No I/O.

YAML 1.1 (which the library implements) and YAML 1.2 read some words differently: `010` is 8 or 10, `1:30` is 90 or
text, `yes` is true or text. Such a word is refused; in quotes it is text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import yaml

from pipeline.errors import SettingError

MERGE = "<<"
SHOWN_MAX = 80
_INVALID = object()
# How plain words are read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema).
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]+", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")
_PLAIN_NUMBER = (
    "write a number in decimal digits without leading zeros, separators or exponent, a truth value as true or false, "
    "and put text in quotes"
)
_OURS = (
    (r"found character '\\t' .*|found a tab character.*", "it has a tab: use spaces"),
    (r"but found another document", "a second document begins here: keep one per file"),
    (r"expected a mapping or list of mappings for merging.*", "`<<` merges mappings: give an alias of one"),
    (r"found undefined alias '(.*)'", r"there is no anchor &\1 before it: write the value out"),
)
"""The words of the library that do not say what to do, and ours."""


class Lines:
    """The line of each field of a file."""

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


def read(text: str, where: str) -> tuple[Any, Lines]:
    """Return what the one YAML document in `text` holds, and the lines of its fields; errors name `where`.

    Anchors, aliases and merges (`<<`) are followed. Raises SettingError for invalid YAML, an empty file, a second
    document, a name that is given twice or is not text, a tag, and a word that the versions of YAML read differently.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise SettingError(f"{where} is empty: start with `name:` and `about:`")
        lines = Lines(where, node)
        _check(loader, lines, node)
        return loader.construct_document(node), lines
    except yaml.reader.ReaderError as error:
        at = text.count("\n", 0, error.position) + 1
        raise SettingError(
            f"{where}, line {at}: the character U+{error.character:04X} is not text: remove it"
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        problem = error.problem or error.context or ""
        raise SettingError(f"{where}{line} is not valid YAML: {_words(problem)}") from error
    except RecursionError as error:
        raise SettingError(f"{where} is nested too deeply: a design has lists of mappings only") from error


def shown(value: object) -> str:
    """Return `value` as text that is short, also where aliases make it large."""
    if isinstance(value, dict | list):
        return f"{'a mapping' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return _short(repr(value) if value is not None else "empty")


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}…"


def _words(problem: str) -> str:
    for pattern, ours in _OURS:
        if matched := re.fullmatch(pattern, problem):
            return matched.expand(ours)
    return f"{problem}: check the indentation, colons, quotes and brackets there"


def _child(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    if isinstance(node, yaml.MappingNode):
        # What is merged comes first, and the mapping's own names prevail.
        for key, value in reversed(node.value):
            if key.value == step:
                return key.start_mark.line + 1, value
    return None


def _check(loader: yaml.SafeLoader, lines: Lines, root: yaml.Node) -> None:
    """Refuse what a reader of the file may understand otherwise than the library; each node is visited once."""
    visited: set[int] = set()

    def visit(node: yaml.Node, path: tuple[str | int, ...]) -> None:
        if id(node) in visited:
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                line = key.start_mark.line + 1
                if not isinstance(key, yaml.ScalarNode):
                    raise lines.error(path, "a name is a list or a mapping: use text", line)
                inner = (*path, key.value)
                if key.value in names:
                    raise lines.error(inner, "it is given twice: remove one", line)
                names.add(key.value)
                if key.value != MERGE:
                    _refuse_ambiguous(loader, lines, key, inner)
                    if key.tag != loader.DEFAULT_SCALAR_TAG:
                        raise lines.error(inner, "a name must be text: put it in quotes", line)
                visit(value, inner)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                visit(value, (*path, index))
        else:
            _refuse_ambiguous(loader, lines, node, path)
        if node.tag != _implied(loader, node):
            raise lines.error(path, f"it has the tag {node.tag.replace('tag:yaml.org,2002:', '!!')}: remove the tag")

    visit(root, ())


def _implied(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    """Return the tag that a node has without an explicit one."""
    plain = not isinstance(node, yaml.ScalarNode) or node.style is None
    resolve: Callable[..., str] = loader.resolve
    return resolve(type(node), node.value, (plain, not plain))


def _refuse_ambiguous(loader: yaml.SafeLoader, lines: Lines, node: yaml.Node, path: tuple[str | int, ...]) -> None:
    if not isinstance(node, yaml.ScalarNode) or node.style is not None or node.tag != _implied(loader, node):
        return
    try:
        older: object = loader.construct_object(node)
    except (ValueError, yaml.YAMLError):
        # Such as 2025-13-45, which is no date.
        older = _INVALID
    newer = _core(node.value)
    both_nan = isinstance(older, float) and isinstance(newer, float) and math.isnan(older) and math.isnan(newer)
    if (type(older) is not type(newer) or older != newer) and not both_nan:
        raise lines.error(
            path,
            f"it is {_short(node.value)}, which YAML 1.1 reads as {_kind(older)} and YAML 1.2 as {_kind(newer)}; "
            f"{_PLAIN_NUMBER}",
            node.start_mark.line + 1,
        )


def _core(word: str) -> object:
    """Return what a plain word is in the core schema of YAML 1.2."""
    if _NULL.fullmatch(word):
        return None
    if truth := _BOOL.fullmatch(word):
        return truth[1] is not None
    for pattern, base in ((_INT, 10), (_OCTAL, 8), (_HEX, 16)):
        if pattern.fullmatch(word) and len(word) <= SHOWN_MAX:
            return int(word.removeprefix("0o"), base)
    if infinite := _INFINITY.fullmatch(word):
        return -math.inf if infinite[1] == "-" else math.inf
    if _NAN.fullmatch(word):
        return math.nan
    return float(word) if _FLOAT.fullmatch(word) else word


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value:g}" if isinstance(value, float) else f"the number {value}"
    if value is _INVALID:
        return "nothing valid"
    return "a date" if isinstance(value, date) else "empty" if value is None else "text"
