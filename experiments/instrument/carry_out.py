"""Plant every fault of the catalogue, measure the clean runs, and say what was caught under which name."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.analysis.analyse import analyse
from experiments.instrument import frame_faults, live, live_faults, mutants, table
from experiments.instrument.fault import Outcome, names
from experiments.instrument.live_faults import LiveFault
from experiments.instrument.mutations import MUTATIONS, Mutation
from experiments.machine import machine_lock
from experiments.repository import PACKAGE
from experiments.synthetic.run import make_run
from pipeline.errors import EmoStreamError, SettingError

CLEAN_TWINS, CLEAN_CHAINS = 20, 5
CLEAN_TWIN, CLEAN_CHAIN = "clean-twin", "clean-chain"
SHORT_CLEAN_TWINS = 1
SHORT_TWINS = ("twin-lost", "twin-doubled", "twin-altered", "twin-phantoms", "twin-not-emitted")
SHORT_MUTATIONS = ("quantile-rank", "floor-previous", "worst-mean", "doubles-ignored", "hash-not-compared")
"""What a short check plants of the twin's faults and of the mutations: one that fits into a minute."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Selection:
    """What is planted, and how many clean runs are measured."""

    frames: tuple[str, ...] = tuple(frame_faults.FAULTS)
    twin: tuple[str, ...] = tuple(live_faults.TWIN)
    chain: tuple[str, ...] = tuple(live_faults.CHAIN)
    source: tuple[str, ...] = tuple(MUTATIONS)
    clean_twins: int = CLEAN_TWINS
    clean_chains: int = CLEAN_CHAINS


SHORT = Selection(twin=SHORT_TWINS, chain=(), source=SHORT_MUTATIONS, clean_twins=SHORT_CLEAN_TWINS, clean_chains=0)


@dataclass
class Result:
    """What was found: an outcome per fault, the names of the alarms by clean run, and `live.Place.made_again`."""

    outcomes: list[Outcome] = field(default_factory=list)
    clean: dict[str, list[str]] = field(default_factory=dict)
    made_again: dict[str, list[list[str]]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """Return what instrument.json holds."""
        return {
            "planted": len(self.outcomes),
            "caught": sum(outcome.caught for outcome in self.outcomes),
            "named": sum(outcome.named for outcome in self.outcomes),
            "clean_runs": len(self.clean),
            "false_alarms": sum(bool(alarms) for alarms in self.clean.values()),
            "alarms": {run: alarms for run, alarms in self.clean.items() if alarms},
            "made_again": self.made_again,
            "faults": [asdict(outcome) for outcome in self.outcomes],
        }

    @property
    def passed(self) -> bool:
        """Whether every fault was caught and rightly named, and no clean run gave an alarm."""
        return all(outcome.named for outcome in self.outcomes) and not any(self.clean.values())


def selected(only: Sequence[str], *, short: bool) -> Selection:
    """Return what is planted: all, what a short check plants, or what `only` names.

    `clean-twin` and `clean-chain` are one clean run each. Raises SettingError naming a fault that does not exist, with
    those that are written alike.
    """
    if not only:
        return SHORT if short else Selection()
    known = [*frame_faults.FAULTS, *live_faults.TWIN, *live_faults.CHAIN, *MUTATIONS, CLEAN_TWIN, CLEAN_CHAIN]
    for name in only:
        if name not in known:
            alike = difflib.get_close_matches(name, known, 3, 0.4) or known[:3]
            raise SettingError(
                f"--only is {name!r}, and there is no such fault: give one of the table in docs/instrument.md, such as "
                f"{', '.join(alike)}"
            )

    def of(catalogue: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in catalogue if name in only)

    return Selection(
        of(frame_faults.FAULTS),
        of(live_faults.TWIN),
        of(live_faults.CHAIN),
        of(MUTATIONS),
        clean_twins=int(CLEAN_TWIN in only),
        clean_chains=int(CLEAN_CHAIN in only),
    )


def carry_out(selection: Selection, machine: live.Machine, say: Say = print) -> Result:
    """Plant what is selected, one after the other; each outcome is reported to `say` as a line of the table.

    On a `machine` that is "shared" nothing judges what other work took of it. Raises EmoStreamError if a run or a check
    could not be carried out, SettingError for a mutation whose text is gone.
    """
    result = Result()

    def add(outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            result.outcomes.append(outcome)
            say(table.line(outcome))

    mutations = [MUTATIONS[name] for name in selection.source]
    alone = machine_lock.alone("The instrument's test")
    with alone, tempfile.TemporaryDirectory(prefix="emostream-instrument-") as scratch:
        folder = Path(scratch)
        add(_in_frames(selection.frames))
        add(_in_analysis([mutation for mutation in mutations if not mutation.live], folder))
        in_load = [mutation for mutation in mutations if mutation.live]
        if selection.twin or selection.chain or in_load or selection.clean_twins or selection.clean_chains:
            with live.place(folder, machine) as place:
                result.made_again = place.made_again
                _on_twins(selection, place, result, add, say)
                add(mutants.of_live_run(mutation, folder / "mutants", place.bootstrap_servers) for mutation in in_load)
                if selection.chain:
                    with live.chain_up(place) as ready_file:
                        for run, faults in _runs(selection.chain, live_faults.CHAIN):
                            add(live.on_chain(faults, ready_file, place, run))
            for number in range(1, selection.clean_chains + 1):
                _clean(f"{CLEAN_CHAIN}-{number}", live.clean_chain, place, result, say)
    return result


def _in_frames(selection: Iterable[str]) -> Iterator[Outcome]:
    run = make_run(measured_triggers=mutants.MEASURED_TRIGGERS)
    for name in selection:
        fault = frame_faults.FAULTS[name]
        frames, about = frame_faults.planted(fault, run)
        yield Outcome.of(fault, "frames", names(analyse(frames, run.parameters, about).verdict))


def _in_analysis(mutations: Sequence[Mutation], folder: Path) -> Iterator[Outcome]:
    if not mutations:
        return
    cases = folder / "cases"
    shown_by = tuple(dict.fromkeys(name for mutation in mutations for name in mutation.on))
    mutants.write_cases(shown_by, cases)
    with mutants.checking() as checks:
        # The source as it is: what is found in a mutation is then the mutation's.
        if differing := checks.found(PACKAGE.parent, cases, shown_by):
            raise EmoStreamError(
                f"without a mutation, both readings of the check set differ in {', '.join(differing)}: make them equal "
                "first"
            )
        for mutation in mutations:
            yield mutants.of_analysis(mutation, checks, folder / "mutants", cases)


def _on_twins(
    selection: Selection, place: live.Place, result: Result, add: Callable[[Iterable[Outcome]], None], say: Say
) -> None:
    for run, faults in _runs(selection.twin, live_faults.TWIN):
        add(live.on_twin(faults, place, run))
    for number in range(1, selection.clean_twins + 1):
        _clean(f"{CLEAN_TWIN}-{number}", live.clean_twin, place, result, say)


def _clean(
    name: str, measured: Callable[[live.Place, str], list[str]], place: live.Place, result: Result, say: Say
) -> None:
    alarms = result.clean[name] = measured(place, name)
    say(f"{'ALARM   ' if alarms else 'ok      '}clean   {name}: {', '.join(alarms) or 'nothing'}")


def _runs(selection: Iterable[str], catalogue: Mapping[str, LiveFault]) -> Iterator[tuple[str, list[LiveFault]]]:
    """Return the faults by the run in which they are planted: all of a run, as one harm plants them together."""
    runs = dict.fromkeys(catalogue[name].run or name for name in selection)
    for run in runs:
        yield run, [each for each in catalogue.values() if (each.run or each.name) == run]
