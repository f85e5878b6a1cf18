"""`python -m experiments.faults SCENARIO…`: carry out scenarios of the package in the working directory."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from experiments.faults.carry_out import carry_out, selected


def main(argv: Sequence[str] | None = None) -> None:
    """Carry out the scenarios that are named; end with status 1 if something was wrong."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.faults",
        description="Carry out scenarios of the fault suite, shortened, with one seed: they show the planted bugs.",
    )
    line.add_argument("scenario", nargs="+", help="a scenario, such as kafka-killed")
    outcomes = carry_out(
        selected(line.parse_args(argv).scenario, short=True), [1], lambda text: print(text, flush=True)
    )
    sys.exit(not all(outcome.passed for outcome in outcomes))


if __name__ == "__main__":
    main()
