"""What a planted fault is, the names under which an analysis reports one, and when it counts as caught."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from experiments.analysis.verdict import Verdict

Where = Literal["frames", "twin", "chain", "source"]

OF_THE_MACHINE = frozenset(
    {
        "Foreign work used the machine",
        "The host took CPU away",
        "The machine's speed changed",
        "The receivers were late",
    }
)
"""Reasons against a run that another program on the machine can bring about."""
BESIDE_OTHER_WORK = frozenset(
    {
        *("e2e_excess_p50_s", "e2e_excess_p99_s", "batch_p95_s", "headroom", "lag_slope_upper_share"),
        *("deliveries_late", "The generator stalled", "The generator fell behind its plan", "Triggers are wrong"),
        "Another run was active on this machine at the same time",
    }
)
"""Names that a machine shared with other work, and with other measurements, can bring about without a fault."""


CHANGES = (
    "The time from trigger to screens changed during the measurement",
    "The micro-batch time changed during the measurement",
)
"""Why a run is UNSTEADY."""


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    `expected` are the names under which it must be reported: keys of objectives, headings of reasons, and for a
    mutation of the source also summary keys whose figure differs. Each of them must be found. `also` may be found
    beside them, because they follow from the fault. Any other name is a wrong one.
    """

    name: str
    what: str
    expected: tuple[str, ...]
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """A row of the table: a planted fault, the names found, and what they amount to."""

    name: str
    where: Where
    what: str
    expected: tuple[str, ...]
    found: tuple[str, ...]
    caught: bool
    named: bool

    @classmethod
    def of(cls, fault: Fault, where: Where, found: Iterable[str], tolerated: Iterable[str] = ()) -> Outcome:
        """Judge what was found: named if all expected names and no wrong ones are there, caught if anything was found.

        What is `tolerated` is no wrong name, and alone does not count as caught.
        """
        found, tolerated = tuple(dict.fromkeys(found)), set(tolerated)
        caught = bool(set(found) & set(fault.expected) or set(found) - tolerated)
        wrong = set(found) - {*fault.expected, *fault.also, *tolerated}
        named = set(fault.expected) <= set(found) and not wrong
        return cls(fault.name, where, fault.what, fault.expected, found, caught, named)


def heading(reason: str) -> str:
    """Return the name of a reason: its words before the figures and the remedy, with its numbers left out.

    >>> heading("The clock stepped by +10.0 ms, 30.0 s into the run (at most 5 ms): keep time …")
    'The clock stepped'
    >>> heading("Only 98.10% of the plan was sent (981 of 1,000; at least 99.9% is needed): lower …")
    'Only … of the plan was sent'
    """
    return re.sub(r"[+-]?\d[\d.,]*%?", "…", re.split(r"[:(]| by ", reason)[0]).strip()


def names(verdict: Verdict) -> tuple[str, ...]:
    """Return every name that a verdict gives: the headings of its reasons and the keys of the objectives missed."""
    return (*map(heading, verdict.reasons), *(slo.key for slo in verdict.slos if not slo.passed))
