"""`python -m experiments`: the instrument's command line. It only wires."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments import environment as instrument
from experiments.cli import instrument as commands
from pipeline import environment, logs


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; errors are one line and exit status 1."""
    options = commands.parse(parser(), None if argv is None else list(argv))
    command = _docs if options.command == "docs" else commands.LINES[options.command][2]
    sys.exit(commands.carry_out(f"experiments {options.command}", command, options))


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    line = argparse.ArgumentParser(prog="python -m experiments", description="Measure the chain.")
    parsers = line.add_subparsers(dest="command", required=True)
    for name, (words, add, _) in commands.LINES.items():
        add(partial(parsers.add_parser, name, help=words))
    docs = parsers.add_parser(
        "docs",
        help="write the generated parts of the Markdown documents",
        description="Write the generated parts of the Markdown documents: settings, options, designs and routes.",
    )
    docs.add_argument("documents", type=Path, nargs="*", help="default: every Markdown file of the repository")
    docs.add_argument("--check", action="store_true", help="write nothing; name the documents that are not current")
    return line


def _docs(options: argparse.Namespace) -> int:
    from experiments import documents

    stale = documents.update(options.documents, check=options.check)
    for document in stale:
        print(f"{document}: {'not current, run python -m experiments docs' if options.check else 'written'}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    environment.restart_without_others(instrument.own)
    # Without this, warnings of the bus would be printed among the results.
    logs.configure("experiments", "warning")
    main()
