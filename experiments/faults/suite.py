"""The whole suite: scenarios with their seeds, planted bugs and fuzzing, and when it has passed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from experiments.faults.apart import Apart, side_by_side
from experiments.faults.carry_out import Say, ScenarioOutcome, fuzzed, grouped
from experiments.faults.kept import Kept
from experiments.faults.mutations import MUTATIONS, caught
from experiments.faults.scenarios import Scenario

FUZZED_REQUESTS, FUZZED_RECORDS = 20_000, 10_000
NONE_MAY_BE = ("failed", "fuzzed_wrong", "unexpected_5xx", "stages_ended")


def with_seeds(
    scenarios: Sequence[Scenario],
    seeds: Iterable[int],
    *,
    full: bool,
    at_a_time: int,
    say: Say,
    kept: Kept | None = None,
) -> list[ScenarioOutcome]:
    """Carry out each scenario with each seed, on so many chains at a time; return the outcomes.

    What is `kept` is not carried out again, and what is carried out is added to it. Raises EmoStreamError if the
    process of some scenarios left no outcomes.
    """

    def task(seed: int, group: Sequence[Scenario]) -> Callable[[Apart], list[ScenarioOutcome]]:
        def carried_out(apart: Apart) -> list[ScenarioOutcome]:
            names = [each.name for each in group]
            before = kept.outcomes(names, seed) if kept is not None else []
            left = [name for name in names if name not in {each.name for each in before}]
            found = apart.run(left, seed, full=full, say=say).outcomes if left else []
            if kept is not None:
                kept.add(found)
            return [*before, *found]

        return carried_out

    tasks = [task(seed, group) for seed in seeds for group in grouped(scenarios)]
    return [outcome for outcomes in side_by_side(tasks, at_a_time) for outcome in outcomes]


def beyond_scenarios(at_a_time: int, say: Say) -> dict[str, Any]:
    """Plant the bugs, each of which a scenario has to find, and fuzz the services; return the figures of both."""
    found = side_by_side([partial(caught, mutation, say=say) for mutation in MUTATIONS], at_a_time)
    return {
        "mutations": len(MUTATIONS),
        "mutations_caught": sum(found),
        **fuzzed(FUZZED_REQUESTS, FUZZED_RECORDS, say),
    }


def passed(figures: Mapping[str, Any]) -> bool:
    """Return whether nothing was wrong, and every bug that was planted was found."""
    wrong = any(figures.get(name) for name in NONE_MAY_BE)
    return not wrong and figures.get("mutations") == figures.get("mutations_caught")
