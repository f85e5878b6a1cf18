"""`python -m pipeline up` runs the whole chain on one machine; `python -m pipeline scale` changes its size."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline import environment, lifecycle, logs, settings
from pipeline.errors import EmoStreamError
from pipeline.supervisor import reports

# These settings belong to one process of several, so they are options of that process only.
NOT_FOR_UP = {"cluster", "subscriber", "subscriber_port", "subscriber_url"}
SUBSCRIBERS_MAX = 100
# At level info only what the chain's own stages do is worth a line.
QUIET_AT_INFO = ("circus", "tornado", "pipeline.cluster_routes")
USAGE = """usage: python -m pipeline up [--help]      start the whole chain and keep it running
       python -m pipeline scale [--help]   add or remove subscribers and clusters while it runs"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; an error is one line, with exit status 1 or 2."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments and arguments[0] in ("-h", "--help"):
        print(USAGE)
        return
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        unknown = f"\npipeline: command is {arguments[0]!r}: choose up or scale" if arguments else ""
        sys.exit(USAGE + unknown)
    try:
        command(arguments[1:])
    except EmoStreamError as error:
        sys.exit(f"pipeline {arguments[0]}: {error}")
    except KeyboardInterrupt:
        print(f"pipeline {arguments[0]}: interrupted", file=sys.stderr)
        sys.exit(lifecycle.INTERRUPTED)


def _up(arguments: Sequence[str]) -> None:
    line = settings.parser(
        "python -m pipeline up",
        "Start the whole chain, print one line of JSON once a first window has passed through it, and keep it running. "
        "Ctrl-C, SIGTERM, or the end of the process that started this command stops every stage.",
        [name for name in settings.FIELDS if name not in NOT_FOR_UP],
    )
    line.add_argument("--ready-file", type=Path, metavar="FILE", help="also write the line of JSON to FILE")
    line.add_argument(
        "--ready-timeout-s",
        type=_seconds,
        default=120.0,
        metavar="X",
        help="give up if the chain is not ready after this time, seconds",
    )
    values, options = settings.parse(line, arguments)
    started_s = time.monotonic()
    logs.configure(
        "up", values.log_level, reports.readable(lambda: time.monotonic() - started_s, otherwise=logs.READABLE)
    )
    if values.log_level == "info":
        for name in QUIET_AT_INFO:
            logging.getLogger(name).setLevel(logging.WARNING)
    environment.log_ignored()
    # Not at the top: it takes a while, in which Ctrl-C must end in one line as well. With PYTHONOPTIMIZE=2, before the
    # restart at the end of this module, it fails.
    from pipeline.supervisor.supervisor import Supervisor

    Supervisor(values, options.ready_file, options.ready_timeout_s).run()


def _scale(arguments: Sequence[str]) -> None:
    line = settings.parser(
        "python -m pipeline scale",
        "Set the number of subscribers of one cluster, in the chain that runs in run_dir. 0 removes the cluster; a new "
        "name adds one. Clients are redirected to the remaining or new subscribers and miss no window. Prints one line "
        "of JSON when the registry shows the new subscribers.",
        ["run_dir", "cluster"],
    )
    line.add_argument(
        "--subscribers",
        dest="count",
        type=_count,
        required=True,
        default=argparse.SUPPRESS,
        metavar="N",
        help="number of subscribers; 0 removes the cluster",
    )
    line.add_argument(
        "--timeout-s",
        type=_seconds,
        default=60.0,
        metavar="X",
        help="give up if the chain is not scaled after this time, seconds",
    )
    values, options = settings.parse(line, arguments)
    logs.configure("scale", "warning" if values.log_level == "info" else values.log_level)
    from pipeline.supervisor.scaling import scale

    done = scale(Path(values.run_dir).resolve(), values.cluster, options.count, options.timeout_s)
    print(json.dumps(done), flush=True)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= SUBSCRIBERS_MAX):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 0 to {SUBSCRIBERS_MAX}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a finite number above 0")
    return seconds


COMMANDS = {"up": _up, "scale": _scale}

if __name__ == "__main__":
    environment.restart_without_others()
    main()
