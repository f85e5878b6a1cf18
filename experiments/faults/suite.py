"""What the full profile does beside the scenarios, and when the suite has passed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from experiments.faults.carry_out import fuzzed
from experiments.faults.mutations import MUTATIONS, caught

FUZZED_REQUESTS, FUZZED_RECORDS = 20_000, 10_000
NONE_MAY_BE = ("failed", "fuzzed_wrong", "unexpected_5xx", "stages_ended")


def beyond_scenarios(say: Callable[[str], None]) -> dict[str, Any]:
    """Plant the bugs, each of which a scenario has to find, and fuzz the services; return the figures of both."""
    found = caught(MUTATIONS, say)
    return {
        "mutations": len(MUTATIONS),
        "mutations_caught": len(found),
        **fuzzed(FUZZED_REQUESTS, FUZZED_RECORDS, say),
    }


def passed(figures: Mapping[str, Any]) -> bool:
    """Return whether nothing was wrong, and every bug that was planted was found."""
    wrong = any(figures.get(name) for name in NONE_MAY_BE)
    return not wrong and figures.get("mutations") == figures.get("mutations_caught")
