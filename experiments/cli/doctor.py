"""`emostream doctor`: checks this machine, and says what to do about each finding."""

from __future__ import annotations

import argparse
import json
import os

from experiments.cli.instrument import Make

FINDINGS = 1
"""The exit status if something is wrong."""


def line(make: Make) -> argparse.ArgumentParser:
    """Add the parser of this command."""
    result = make(
        description="Check what a chain needs of this machine, and say what to do about each finding. Nothing is "
        "started or changed.",
        epilog="Exit status: 0 nothing was found, 1 something was.",
    )
    result.add_argument("--json", action="store_true", help="print all checks as one line of JSON")
    return result


def doctor(options: argparse.Namespace) -> int:
    """Print every check, the findings with their remedies; return 1 if there is one."""
    from rich.console import Console
    from rich.text import Text

    from experiments.cli.checks import all_checks

    checks = all_checks(os.environ)
    wrong = [check for check in checks if not check.ok]
    if options.json:
        print(json.dumps({"findings": len(wrong), "checks": [check.facts() for check in checks]}))
        return FINDINGS if wrong else 0
    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        mark, style = ("ok  ", "green") if check.ok else ("FIX ", "bold red")
        console.print(Text.assemble((mark, style), " ", (f"{check.name:<12}", "bold"), check.found))
        if not check.ok:
            console.print(Text.assemble((" " * 14 + "do: ", style), check.remedy))
    number = f"{len(wrong)} finding{'' if len(wrong) == 1 else 's'}" if wrong else "No problems found."
    console.print(Text(f"\n{number}" + (f": {', '.join(check.name for check in wrong)}" if wrong else "")))
    return FINDINGS if wrong else 0
