"""`python -m experiments.faults SCENARIO…`: carry out scenarios of the package in the working directory."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from experiments import files
from experiments.faults.apart import ENDS_S
from experiments.faults.carry_out import carry_out, selected
from pipeline import lifecycle


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out the scenarios that are named; end with status 1 if something was wrong."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.faults",
        description="Carry out scenarios of the fault suite with one seed, one after the other. The suite runs its "
        "scenarios so, in processes of their own, those that have to find a planted bug included.",
    )
    line.add_argument("scenario", nargs="+", help="a scenario, such as kafka-killed")
    line.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    line.add_argument("--full", action="store_true", help="do not shorten the long scenarios")
    line.add_argument("--outcomes", type=Path, metavar="FILE", help="write the outcomes as JSON into this file")
    options = line.parse_args(argv)
    # Clients that lose their connections are part of a scenario.
    logging.getLogger("pipeline.client").setLevel(logging.ERROR)
    # A scenario that is interrupted has processes to end, which a second signal must not cut off.
    signal.signal(signal.SIGTERM, _end)
    lifecycle.follow_parent(grace_s=ENDS_S)
    outcomes = carry_out(
        selected(options.scenario, short=not options.full), [options.seed], lambda text: print(text, flush=True)
    )
    if options.outcomes:
        files.write_text(options.outcomes, json.dumps([asdict(outcome) for outcome in outcomes]))
    sys.exit(not all(outcome.passed for outcome in outcomes))


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(lifecycle.TERMINATED)


if __name__ == "__main__":
    main()
