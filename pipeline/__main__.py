"""`python -m pipeline up`: the whole chain on one machine; `python -m pipeline scale`: more or less of it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import logs, settings
from pipeline.errors import EmoStreamError
from pipeline.supervisor.scaling import scale
from pipeline.supervisor.supervisor import Supervisor

# What only one process of many may have is for its own command line.
NOT_FOR_UP = {"cluster", "subscriber", "subscriber_port", "subscriber_url"}
SUBSCRIBERS_MAX = 100
USAGE = """usage: python -m pipeline up [--help]      start the whole chain and keep it running
       python -m pipeline scale [--help]   add or remove subscribers and clusters while it runs"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; errors are one line and exit status 1 or 2."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        sys.exit(USAGE)
    try:
        command(arguments[1:])
    except EmoStreamError as error:
        sys.exit(f"pipeline {arguments[0]}: {error}")


def _up(arguments: Sequence[str]) -> None:
    line = settings.parser(
        "python -m pipeline up",
        "Start the whole chain, print one line of JSON when a first window has been through, and keep it running. "
        "Ctrl-C, SIGTERM or the end of the process that started it take everything down.",
        [name for name in settings.FIELDS if name not in NOT_FOR_UP],
    )
    line.add_argument("--ready-file", type=Path, metavar="FILE", help="write that line here, too")
    line.add_argument("--ready-timeout-s", type=float, default=120.0, metavar="X", help="give up after, seconds")
    values, options = settings.parse(line, arguments)
    logs.configure("up", "warning" if values.log_level == "info" else values.log_level)
    Supervisor(values, options.ready_file, options.ready_timeout_s).run()


def _scale(arguments: Sequence[str]) -> None:
    line = settings.parser(
        "python -m pipeline scale",
        "Give a cluster of the chain that runs in run_dir so many subscribers. None removes the cluster, a name that "
        "is not there yet adds one. Clients are led to those that stay, or come, and miss nothing. Prints one line of "
        "JSON when the registry sees all of it.",
        ["run_dir", "cluster"],
    )
    line.add_argument(
        "--subscribers", dest="wanted", type=_count, required=True, metavar="N", help="so many; 0 removes the cluster"
    )
    line.add_argument("--timeout-s", type=float, default=60.0, metavar="X", help="give up after, seconds")
    values, options = settings.parse(line, arguments)
    logs.configure("scale", "warning" if values.log_level == "info" else values.log_level)
    done = scale(Path(values.run_dir).resolve(), values.cluster, options.wanted, options.timeout_s)
    print(json.dumps(done), flush=True)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= SUBSCRIBERS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to {SUBSCRIBERS_MAX}")
    return int(text)


COMMANDS = {"up": _up, "scale": _scale}

if __name__ == "__main__":
    main()
