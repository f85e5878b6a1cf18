"""The reference of every command and option, made from the parsers: the generated part of docs/command-line.md."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import Any, Never
from unittest import mock

from experiments.cli.__main__ import OF_CHAIN, OF_INSTRUMENT, parser
from experiments.cli.completion import commands
from experiments.repository import ROOT
from pipeline import settings
from pipeline.errors import EmoStreamError

PACKAGES = ("pipeline", "spark", "experiments")
# In two parts, or this module would have it too.
STARTED_AS_MODULE = "if __name__ == " + '"__main__":'
# Their commands are those of `emostream`; experiments.cli is `emostream` itself.
JOINT = ("pipeline", "experiments", "experiments.cli")
ALIASES = {"experiment": "run"}
"""What a command of `emostream` is called in `python -m experiments`, where that differs."""


def modules() -> list[str]:
    """Return every module that `python -m` runs, as it is written after `-m`."""
    names = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if STARTED_AS_MODULE in path.read_text(encoding="utf-8"):
                names.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return names


def reference() -> str:
    """Return the reference in Markdown. Raises EmoStreamError for a module whose options cannot be found out."""
    parts = [_section(line, "###") for line in commands(parser())]
    parts.append("### With `python -m`\n\n" + _aliases())
    parts += [_section(parser_of(module), "####") for module in modules() if module not in JOINT]
    return "\n\n".join(parts) + "\n"


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that the `main` of a module uses: it is called, and stops where it would parse."""

    class FoundError(Exception):
        """Carries the parser out of `main`."""

    def stop(line: argparse.ArgumentParser, *_: Any) -> Never:
        raise FoundError(line)

    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            _main(module)()
        except FoundError as found:
            line: argparse.ArgumentParser = found.args[0]
            return line
    raise EmoStreamError(f"`python -m {module}` parses no options with argparse: its options cannot be documented")


def _main(module: str) -> Any:
    """Return the `main` of a module; that of a stage is in its server."""
    for name in (f"{module}.__main__", f"{module}.server", module):
        if not (ROOT / Path(*name.split("."))).with_suffix(".py").exists():
            continue
        if (main := getattr(importlib.import_module(name), "main", None)) is not None:
            return main
    raise EmoStreamError(f"module {module} has no `main`: give it one, without arguments")


def _aliases() -> str:
    same = [f"`python -m pipeline {name}`" for name in OF_CHAIN if name in ("up", "scale", "dead-letters")]
    same += [f"`python -m experiments {ALIASES.get(name, name)}`" for name in OF_INSTRUMENT]
    return (
        f"{', '.join(same)} are the commands above and have their options; `run` is `experiment`. "
        "`python -m experiments.cli` is `emostream`. "
        "`python -m experiments docs` writes this reference and the other generated parts of the documents; "
        "it takes documents, and `--check` (write nothing; name the documents that are not current). "
        "The other commands start single stages, or belong to the instrument itself."
    )


def _section(line: argparse.ArgumentParser, heading: str) -> str:
    own = [action for action in line._actions if _is_shown(action)]
    of_settings = [action for action in own if _is_setting(action)]
    rest = [action for action in own if not _is_setting(action)]
    parts = [f"{heading} {line.prog}", _plain(line.description or "")]
    if rest:
        rows = [f"| {_names(action)} | {_plain(_help(action))} |" for action in rest]
        parts.append("\n".join(["| argument | meaning |", "| --- | --- |", *rows]))
    if of_settings:
        names = ", ".join(f"`{action.option_strings[0]}`" for action in of_settings)
        parts.append(f"[Settings](operating.md#settings) as options: {names}.")
    if line.epilog:
        parts.append(_plain(line.epilog))
    return "\n\n".join(part for part in parts if part)


def _is_shown(action: argparse.Action) -> bool:
    hidden = action.help == argparse.SUPPRESS
    return not hidden and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _is_setting(action: argparse.Action) -> bool:
    """Return whether `settings.parser` has made this option."""
    return action.dest in settings.FIELDS and action.default == argparse.SUPPRESS and bool(action.option_strings)


def _names(action: argparse.Action) -> str:
    """Return how an argument is written, with what it takes."""
    names = action.option_strings or [action.dest if action.metavar is None else str(action.metavar)]
    takes = ""
    if action.option_strings and action.nargs != 0:
        named = action.metavar or action.dest.upper()
        takes = " " + (" ".join(named) if isinstance(named, tuple) else named)
    choices = f": {', '.join(f'`{choice}`' for choice in action.choices)}" if action.choices else ""
    return ", ".join(f"`{name}{takes}`" for name in names) + choices


def _help(action: argparse.Action) -> str:
    text = action.help or ""
    default = action.default
    if isinstance(default, Path):
        # As in a checkout, from its top.
        default = default.relative_to(ROOT) if default.is_relative_to(ROOT) else default
    if "%(default)s" in text:
        return text.replace("%(default)s", f"`{default}`")
    told = "default" in text or not default or default == argparse.SUPPRESS or action.required
    return text if told or not action.option_strings else f"{text}; default: `{default}`"


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text.replace("%%", "%")).replace("|", "\\|").replace("<", "&lt;")
