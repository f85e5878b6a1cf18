"""`python -m pipeline up`: the whole chain on one machine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline import logs, settings
from pipeline.errors import EmoStreamError
from pipeline.supervisor import Supervisor

# What only one process of many may have is for its own command line.
NOT_FOR_UP = {"cluster", "subscriber", "subscriber_port", "subscriber_url"}


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; errors are one line and exit status 1 or 2."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if not arguments or arguments[0] != "up":
        sys.exit("usage: python -m pipeline up [--help]   start the whole chain and keep it running")
    line = settings.parser(
        "python -m pipeline up",
        "Start the whole chain, print one line of JSON when a first window has been through, and keep it running. "
        "Ctrl-C, SIGTERM or the end of the process that started it take everything down.",
        [name for name in settings.FIELDS if name not in NOT_FOR_UP],
    )
    line.add_argument("--ready-file", type=Path, metavar="FILE", help="write that line here, too")
    line.add_argument("--ready-timeout-s", type=float, default=120.0, metavar="X", help="give up after, seconds")
    try:
        values, options = settings.parse(line, arguments[1:])
    except EmoStreamError as error:
        sys.exit(f"pipeline up: {error}")
    logs.configure("up", "warning" if values.log_level == "info" else values.log_level)
    try:
        Supervisor(values, options.ready_file, options.ready_timeout_s).run()
    except EmoStreamError as error:
        sys.exit(f"pipeline up: {error}")


if __name__ == "__main__":
    main()
