"""Carries out scenarios: each on a chain that is up, under load, with its history checked and nothing left over."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.faults import poison
from experiments.faults.fuzz import Fuzzed, fuzz
from experiments.faults.ledger import Anomaly, anomalies
from experiments.faults.scenarios import SHORT, Scenario, catalogue
from experiments.faults.scene import RATE_PER_S, HarmedChain, Usage
from experiments.machine import own_disk, own_network
from pipeline.errors import EmoStreamError, SettingError

BEFORE_S, AFTER_S = 2.0, 3.0
SHOWN = 5
ON_ONE_CHAIN = 12
# Beside three tenths: threads, descriptors, and MB.
SLACK = (30, 100, 300)
# Of what a scenario has its own, and whether this machine can give it.
APART = {"network": own_network, "disk": own_disk}
Say = Callable[[str], None]


@dataclass(frozen=True)
class ScenarioOutcome:
    """One scenario with one seed: what was wrong, and what it took.

    `anomalies` is how many the ledger found, `figures` are the scenario's own. `left_out` is why it was not carried
    out, if it was not.
    """

    name: str
    seed: int
    took_s: float
    sent: int
    accepted: int
    counted: int
    wrong: list[str] = field(default_factory=list)
    anomalies: int = 0
    lost: int = 0
    twice: int = 0
    may_lose: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    left_out: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return not self.wrong


def selected(only: Sequence[str], *, short: bool) -> list[Scenario]:
    """Return the scenarios to carry out. Raises SettingError naming one that does not exist."""
    known = catalogue(full=not short)
    for name in only:
        if name not in known:
            raise SettingError(f"--only is {name!r}, and there is no such scenario: give one of {', '.join(known)}")
    return [each for each in known.values() if (each.name in only if only else each.name in SHORT or not short)]


def grouped(scenarios: Sequence[Scenario]) -> list[Sequence[Scenario]]:
    """Return what is carried out on one chain each: up to ON_ONE_CHAIN scenarios, or one that needs its own."""
    shared = [each for each in scenarios if not (each.alone or each.settings or each.apart)]
    several = [shared[first : first + ON_ONE_CHAIN] for first in range(0, len(shared), ON_ONE_CHAIN)]
    return [*several, *([each] for each in scenarios if each not in shared)]


def carry_out(scenarios: Sequence[Scenario], seeds: Iterable[int], say: Say = print) -> list[ScenarioOutcome]:
    """Carry out each scenario with each seed, one after the other; one that this machine does not allow is left out."""
    outcomes: list[ScenarioOutcome] = []
    with tempfile.TemporaryDirectory(prefix="emostream-faults-") as scratch:
        for seed in seeds:
            for group in grouped(scenarios):
                for outcome in _on_this_machine(group, seed, Path(scratch)):
                    outcomes.append(outcome)
                    say(line(outcome))
    return outcomes


def fuzzed(requests: int, records: int, say: Say = print) -> dict[str, Any]:
    """Send fuzzed requests to every service of a chain, and poison into its topics; return what faults.json says of it.

    The chain is then started again over these topics. Raises EmoStreamError if it does not start at first.
    """
    found = Fuzzed()
    written: Counter[str] = Counter()
    ended = 0
    with tempfile.TemporaryDirectory(prefix="emostream-faults-") as scratch:
        scene = HarmedChain(Path(scratch) / "fuzzed", {}, random.Random("fuzz"))
        scene.up()
        try:
            urls = (scene.endpoints.ingest, scene.endpoints.registry, scene.endpoints.subscribers[0].url)
            for number, url in enumerate(urls):
                fuzz(url, requests // len(urls), number, found)
            scene.flowing(RATE_PER_S, prefix="fuzzed-")
            try:
                written = poison.into(scene, records)
                poison.until_taken(scene)
                ended += scene.deaths()
                scene.down()
                scene.up()
                poison.until_taken(scene)
            except EmoStreamError as error:
                found.wrong.append(f"after the poison: {error}")
            finally:
                ended += scene.deaths()
                scene.flow.close()
        finally:
            scene.down()
    for each in found.wrong:
        say(f"WRONG  {each}")
    say(
        f"{found.requests} fuzzed requests: {dict(sorted(found.statuses.items()))}; {found.unexpected_5xx} faults of a "
        f"service; {poison.without_flood(written)} records of {len(written)} kinds of poison; {ended} stages ended"
    )
    return {
        "fuzzed": found.requests,
        "fuzzed_wrong": len(found.wrong),
        "unexpected_5xx": found.unexpected_5xx,
        "poison": poison.without_flood(written),
        "poison_kinds": len(written),
        "poison_fewest": min(written.values(), default=0),
        "stages_ended": ended,
    }


def line(outcome: ScenarioOutcome) -> str:
    """Return an outcome as a line of the terminal."""
    if outcome.left_out:
        return f"left out {outcome.name}: {outcome.left_out}"
    verdict = "ok    " if outcome.passed else "WRONG "
    counts = f"{outcome.accepted} of {outcome.sent} accepted, {outcome.counted} counted"
    counts += "".join(f", {name} {value:g}" for name, value in outcome.figures.items())
    wrong = "".join(f"\n         {each}" for each in outcome.wrong)
    return f"{verdict} {outcome.name} (seed {outcome.seed}, {outcome.took_s:.0f} s): {counts}{wrong}"


def figures(outcomes: Sequence[ScenarioOutcome]) -> dict[str, Any]:
    """Return what faults.json says of the scenarios; `left_out` has the reasons by name."""
    left_out = {each.name: each.left_out for each in outcomes if each.left_out}
    outcomes = [each for each in outcomes if not each.left_out]
    durable = [each for each in outcomes if not each.may_lose]
    return {
        "scenarios": len({each.name for each in outcomes}),
        "seeds": len({each.seed for each in outcomes}),
        "passed": sum(each.passed for each in outcomes),
        "failed": sum(not each.passed for each in outcomes),
        "left_out": left_out,
        "durable_lost": sum(each.lost for each in durable),
        "counted_twice": sum(each.twice for each in outcomes),
        "async_lost_over_bound": sum(max(0, each.lost - each.may_lose) for each in outcomes if each.may_lose),
        "async_lost_most": max((each.lost for each in outcomes if each.may_lose), default=0),
        "outcomes": [asdict(each) for each in outcomes],
    }


def last_line(found: Mapping[str, Any]) -> str:
    """Return the last line of the suite: how many outcomes passed, and which scenarios were left out, and why."""
    total = found["passed"] + found["failed"]
    left_out = "".join(f"; left out {name}: {reason}" for name, reason in found["left_out"].items())
    return f"{found['passed']} of {total} passed{left_out}"


def _on_this_machine(group: Sequence[Scenario], seed: int, scratch: Path) -> Iterable[ScenarioOutcome]:
    """Carry out the scenarios of a group, on a network or a disk of their own if they need one."""
    own = next((APART[each.apart] for each in group if each.apart), None)
    if own is not None and (reason := own.unavailable()):
        for each in group:
            yield ScenarioOutcome(each.name, seed, 0.0, 0, 0, 0, left_out=reason)
        return
    with own.apart() if own is not None else nullcontext():
        yield from _on_one_chain(group, seed, scratch)


def _on_one_chain(scenarios: Sequence[Scenario], seed: int, scratch: Path) -> Iterable[ScenarioOutcome]:
    """Carry out scenarios one after the other on one chain; after one that failed, the next gets a new chain."""
    scene: HarmedChain | None = None
    try:
        for number, scenario in enumerate(scenarios):
            rng = random.Random(f"{seed}:{scenario.name}")
            if scene is None:
                scene = HarmedChain(scratch / f"{seed}-{scenario.name}", scenario.settings, rng)
                try:
                    scene.up()
                except EmoStreamError as error:
                    yield ScenarioOutcome(scenario.name, seed, 0.0, 0, 0, 0, [f"the chain did not start: {error}"])
                    scene = None
                    continue
            scene.rng = rng
            outcome = carry_out_one(scene, scenario, seed, f"{number}-{scenario.name}-")
            yield outcome
            if not outcome.passed:
                with suppress(EmoStreamError):
                    scene.down()
                scene = None
    finally:
        if scene is not None:
            scene.down()


def carry_out_one(scene: HarmedChain, scenario: Scenario, seed: int, prefix: str) -> ScenarioOutcome:
    """Carry out one scenario on a chain that is up."""
    begun_s = time.monotonic()
    wrong: list[str] = []
    found: list[Anomaly] = []
    history = None
    own: Mapping[str, float] = {}
    try:
        scene.until(lambda: scene.stages() == scene.wanted, "every stage runs", 60)
        usage = scene.usage()
        scene.flowing(scenario.rate_per_s, prefix=prefix, send=scenario.send)
        try:
            time.sleep(BEFORE_S)
            own = scenario.act(scene) or {}
            time.sleep(AFTER_S)
            scene.until_flowing()
        except Exception as error:
            wrong.append(_told(error))
        history = scene.settle()
        found = _but_for(scene.gone, anomalies(history), wrong)
        wrong += _leaks(scene, usage)
        if not scene.lives():
            wrong.append("`up` has ended")
    # Whatever it is, the scenarios after this one are carried out.
    except Exception as error:
        wrong.append(_told(error))
    kinds = Counter(each.kind for each in found)
    may_lose = scenario.may_lose
    if may_lose and kinds["lost"] <= may_lose:
        found = [each for each in found if each.kind != "lost"]
    wrong += [str(each) for each in found[:SHOWN]]
    if len(found) > SHOWN:
        wrong.append(f"and {len(found) - SHOWN} more: {dict(Counter(each.kind for each in found))}")
    sent = scene.flow.sent() if history else []
    told = Counter(each.told for each in sent)
    ids = {each.reaction_id for each in history.stored} if history else set()
    return ScenarioOutcome(
        name=scenario.name,
        seed=seed,
        took_s=round(time.monotonic() - begun_s, 1),
        sent=sum(told.values()),
        accepted=told["accepted"],
        counted=sum(each.reaction_id in ids for each in sent),
        wrong=wrong,
        anomalies=len(found),
        lost=kinds["lost"],
        twice=kinds["duplicate"],
        may_lose=may_lose,
        figures=own,
    )


def _but_for(gone: Set[str], found: Sequence[Anomaly], wrong: list[str]) -> list[Anomaly]:
    """Return what was found without the reactions that Kafka lost on purpose; one that is not lost is wrong."""
    lost = {each.what for each in found if each.kind == "lost"}
    if counted := sorted(gone - lost):
        wrong.append(f"{len(counted)} reactions are not lost, and Kafka has lost them uncounted: {counted[:SHOWN]}")
    return [each for each in found if each.kind != "lost" or each.what not in gone]


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, EmoStreamError) else f"{type(error).__name__}: {error}"


def _leaks(scene: HarmedChain, before: Usage) -> list[str]:
    """Return what the chain holds much more of than before the scenario: a JVM that is new holds other amounts."""
    scene.until(lambda: scene.stages() == scene.wanted, "every stage runs again", 60)
    after = scene.usage()
    bounds = Usage(before.processes, *(round(each * 1.3 + more) for each, more in zip(before[1:], SLACK, strict=True)))
    return [
        f"the chain holds {has:,.0f} {name} ({had:,.0f} before the scenario)"
        for name, has, had, bound in zip(Usage._fields, after, before, bounds, strict=True)
        if has > bound
    ]
