"""`python -m experiments run|bench`: the instrument's command line. It only wires."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments import notebook
from pipeline.errors import EmoStreamError

ROOT = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and run it; errors are one line and exit status 1."""
    line = argparse.ArgumentParser(prog="python -m experiments", description="Measure the chain.")
    commands = line.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="one measured run: execute a notebook, print the report's path last")
    run.add_argument(
        "-p", nargs=2, action="append", default=[], dest="parameters", metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook, e.g. -p users 50",
    )  # fmt: skip
    run.add_argument("--notebook", type=Path, default=ROOT / "notebooks" / "run.ipynb", help="default: %(default)s")
    run.add_argument("--reports", type=Path, default=notebook.REPORTS, help="where reports go: %(default)s")
    run.add_argument("--campaign", default="single", help="the folder below it; default: %(default)s")
    bench = commands.add_parser("bench", help="a benchmark: print and write JSON")
    bench.add_argument("suite", choices=("chain", "ingest", "load"), help="what to benchmark")
    bench.add_argument("--reports", type=Path, default=notebook.REPORTS, help="where reports go: %(default)s")
    options = line.parse_args(argv)
    try:
        if options.command == "run":
            run_dir = notebook.new_run(options.reports / options.campaign)
            print(notebook.execute(options.notebook, dict(options.parameters), run_dir))
        else:
            from experiments.bench import suites

            suites.run(options.suite, options.reports / "bench")
    except EmoStreamError as error:
        sys.exit(f"experiments {options.command}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"experiments {options.command}: interrupted; what was recorded so far is kept")


if __name__ == "__main__":
    main()
