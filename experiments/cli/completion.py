"""`emostream completion SHELL`: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse

from experiments.cli.instrument import Make

SHELLS = {
    "bash": 'eval "$(emostream completion bash)"',
    "zsh": 'eval "$(emostream completion zsh)"',
    "fish": "emostream completion fish | source",
}
"""The line for the start-up file of each shell."""


def line(make: Make) -> argparse.ArgumentParser:
    """Add the parser of this command."""
    result = make(
        description="Print a script that completes emostream's commands and options in a shell.",
        epilog="In ~/.bashrc: " + SHELLS["bash"],
    )
    result.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    return result


def completion(options: argparse.Namespace) -> int:
    """Print the script, made from `options.parser`, the parser of all commands."""
    import shtab

    print(shtab.complete(options.parser, shell=options.shell))
    return 0
