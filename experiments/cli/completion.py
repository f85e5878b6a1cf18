"""`emostream completion SHELL`: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from experiments.cli.instrument import Make
from experiments.repository import DESIGNS

SHELLS = {
    "bash": 'eval "$(emostream completion bash)"',
    "zsh": 'eval "$(emostream completion zsh)"',
    "fish": "emostream completion fish | source",
}
"""The line for the start-up file of each shell."""


DESIGN = {"bash": "_emostream_designs"}
"""What completes a design, by its name or its path; in other shells only files are completed."""


def commands(line: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parser of each command, a command's own commands included."""
    for action in line._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in dict.fromkeys(action.choices.values()):
                yield each
                yield from commands(each)


def line(make: Make) -> argparse.ArgumentParser:
    """Add the parser of this command."""
    result = make(
        description="Print a script that completes emostream's commands and options in a shell.",
        epilog="In ~/.bashrc: " + SHELLS["bash"],
    )
    result.add_argument("shell", choices=list(SHELLS), help="the shell that is to complete")
    return result


def completion(options: argparse.Namespace) -> int:
    """Print the script, made from `options.joint`, the parser of all commands."""
    import shtab

    for each in commands(options.joint):
        for action in each._actions:
            if action.type is Path:
                named = action.dest == "design" and not action.option_strings
                action.complete = {**shtab.FILE, **(DESIGN if named else {})}  # type: ignore[attr-defined]
    names = " ".join(sorted(path.stem for path in DESIGNS.glob("*.yaml")))
    bash = f'{DESIGN["bash"]}() {{\n  compgen -W "{names}" -- "$1"\n  {shtab.FILE["bash"]} "$1"\n}}\n'
    preamble = bash if options.shell == "bash" else ""
    print(shtab.complete(options.joint, shell=options.shell, preamble=preamble))
    return 0
