"""Faults that are planted while a run is measured: in a twin, or in the real parts of a chain.

Faults with the same `run` are planted in one run; the names under which they are expected differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from experiments.instrument import harm
from experiments.instrument.fault import CHANGES, OF_THE_MACHINE, Fault
from pipeline.emojis import recognise

LATE = ("e2e_excess_p50_s", "e2e_excess_p99_s")
SLOW = (*LATE, *CHANGES, "batch_p95_s", "headroom", "lag_slope_upper_share")
"""Consequences of what is late; of a chain that is slow."""


@dataclass(frozen=True)
class LiveFault(Fault):
    """A fault of a live run.

    `twin` is what is planted in the twin (experiments.twin.settings). `harm` is done to real processes. `clock` is a
    context in which the whole run, the twin included, has a wrong clock; Kafka keeps the true one. `parameters` are
    those of the run that differ.
    """

    run: str = ""
    twin: Mapping[str, Any] = field(default_factory=dict)
    harm: harm.Harm = harm.harmless
    clock: Callable[[], AbstractContextManager[None]] = nullcontext
    parameters: Mapping[str, Any] = field(default_factory=dict)


OWN: Mapping[str, Any] = {"machine": "own"}
LONGER: Mapping[str, Any] = {**OWN, "measured_triggers": 20}
"""What is planted must be judged, whatever machine the other runs have."""


def _of(values: Mapping[str, Any], run: str = "", **others: Any) -> Mapping[str, Any]:
    return {"run": run, "twin": values, **others}


LOST, DOUBLED, ALTERED = 700, 800, 900
"""Which of the single reactions that the proxy gets are lost, are passed on twice, and get another emoji."""


def _lie(number: int, body: bytes) -> tuple[bytes, ...]:
    if number == ALTERED:
        said = json.loads(body)
        said["emoji_type"] = "🔥" if recognise(said["emoji_type"]) != "🔥" else "😂"
        return (json.dumps(said).encode(),)
    return (body,) * {LOST: 0, DOUBLED: 2}.get(number, 1)


TWIN: Mapping[str, LiveFault] = {
    fault.name: fault
    for fault in (
        LiveFault("twin-broker-clock", "the clock of the real Kafka is 3 s ahead of every other process's",
                  ("Kafka's clock differs from ours",), ("Effects lie before their causes", "lag_slope_upper_share"),
                  **_of({"append_time": "broker"}), clock=lambda: harm.wrong_clock(step_ms=-3000.0)),
        LiveFault("twin-clock-slewed", "the clock of every process slews by 4.9 ms/s", ("The clock drifted",), (),
                  clock=lambda: harm.wrong_clock(slew_ms_per_s=4.9)),
        LiveFault("twin-clock-stepped", "the clock of every process steps by 50 ms", ("The clock stepped",), SLOW,
                  clock=lambda: harm.wrong_clock(step_ms=50.0, step_after_s=16.0)),
        LiveFault("twin-lost", "reactions answered 202 and never written", ("lost",), LATE,
                  **_of({"lose": 0.002}, "reactions")),
        LiveFault("twin-doubled", "reactions written twice", ("duplicated",), **_of({"duplicate": 0.003}, "reactions")),
        LiveFault("twin-altered", "reactions written with another emoji", ("altered",),
                  **_of({"alter": 0.003}, "reactions")),
        LiveFault("twin-phantoms", "300 phantom reactions that nobody sent", ("foreign",),
                  **_of({"phantoms": {6: 300}}, "reactions")),
        LiveFault("twin-delivery-missing", "deliveries that are never sent", ("deliveries_missing",), LATE,
                  **_of({"lose_deliveries": 0.02}, "deliveries")),
        LiveFault("twin-delivery-doubled", "deliveries that are sent twice", ("deliveries_duplicate",),
                  **_of({"duplicate_deliveries": 0.03}, "deliveries")),
        LiveFault("twin-delivery-altered", "delivered counts altered, with the total kept", ("deliveries_altered",),
                  **_of({"move_deliveries": 0.03}, "deliveries")),
        LiveFault("twin-out-of-order", "deliveries that are sent after later ones", ("deliveries_out_of_order",), LATE,
                  **_of({"hold_deliveries": 0.03}, "deliveries")),
        LiveFault("twin-delivery-late", "a network that needs 2.2 s", ("deliveries_late",), LATE,
                  **_of({"network_ms": [2200, 2300]})),
        LiveFault("twin-not-emitted", "a window never emitted but delivered to all",
                  ("deliveries_unknown", "lost", "offset_breaks", "Windows are missing"),
                  (*LATE, "lag_slope_upper_share"), **_of({"unemitted": [6]})),
        LiveFault("twin-trigger-wrong", "a trigger stamped 1 s wrong", ("Triggers are wrong",),
                  ("Effects lie before their causes", "lag_slope_upper_share", "deliveries_out_of_order"),
                  **_of({"trigger_lies_ms": {6: 1000}})),
        LiveFault("twin-count-raised", "a count that is two too high", ("unexplained", "oracle_share"),
                  ("representatives_wrong",), **_of({"added": {6: 2}}, "windows")),
        LiveFault("twin-emitted-again", "a window emitted again with other contents", ("conflicting",),
                  **_of({"repeated": {8: 1}}, "windows")),
        LiveFault("twin-representatives", "one representative too many", ("representatives_wrong",),
                  **_of({"shown": {6: 1}}, "parts")),
        LiveFault("twin-skipped", "a window that leaves three records out", ("offset_breaks", "lost"), LATE,
                  **_of({"skipped": {8: 3}}, "parts")),
        LiveFault("twin-undelivered", "a window that nobody gets", ("deliveries_missing",), LATE,
                  **_of({"undelivered": [10]}, "parts")),
        LiveFault("twin-progress-halved", "half of Spark's progress is missing", ("Spark's progress is incomplete",),
                  **_of({"lose_progress": 0.5})),
        LiveFault("twin-refused", "0.9 % of the reactions are refused (503)", ("accepted_share",), LATE,
                  **_of({"refuse": 0.009})),
        LiveFault("twin-window-late", "a window that is 2 s late", ("e2e_excess_p99_s", "batch_p95_s"), SLOW,
                  **_of({"late_windows_ms": {6: 2000}})),
        LiveFault("twin-slowing", "a chain that slows down by 1 s per minute", CHANGES, (*OF_THE_MACHINE, *SLOW),
                  **_of({"micro_batch_ms": [70, 70], "late_windows_ms": {n: 1000 / 120 * n for n in range(30)}}),
                  parameters=LONGER),
        LiveFault("twin-step", "a chain that is 100 ms slower from the middle on", CHANGES, (*OF_THE_MACHINE, *SLOW),
                  **_of({"micro_batch_ms": [70, 70], "late_windows_ms": dict.fromkeys(range(12, 30), 100)}),
                  parameters=LONGER),
        # Nine tenths of the interval: with more the backlog would grow, and be lost at the end.
        LiveFault("twin-slow", "reactions of which each adds 3.5 ms to its micro-batch", ("headroom", "batch_p95_s"),
                  SLOW, **_of({"service_us": 3500})),
        LiveFault("twin-receivers-stalled", "the receivers' process is stopped for 1.6 s", ("The receivers were late",),
                  (*OF_THE_MACHINE, *SLOW), harm=harm.stopped("experiments.run.audience", 1.6), parameters=OWN),
        LiveFault("twin-generator-stopped", "the generator's process is stopped for 1.5 s", ("The generator stalled",),
                  ("The generator fell behind its plan", *LATE), harm=harm.stopped("-m experiments.load", 1.5)),
        LiveFault("twin-another-run", "another measurement runs on the machine",
                  ("Another run was active on this machine at the same time",), harm=harm.another_measurement),
    )
}  # fmt: skip
"""The faults on the twin, by name."""

CHAIN: Mapping[str, LiveFault] = {
    fault.name: fault
    for fault in (
        LiveFault("chain-generator-stopped", "the generator's process is stopped for 1.5 s", ("The generator stalled",),
                  ("The generator fell behind its plan", *SLOW), harm=harm.stopped("-m experiments.load", 1.5)),
        LiveFault("chain-spark-stopped", "Spark's processes are stopped for 3 s", ("e2e_excess_p99_s", "headroom"),
                  SLOW, harm=harm.stopped("spark.job", 3.0)),
        LiveFault("chain-ingest-stopped", "ingest's processes are stopped for 2.5 s", ("e2e_excess_p99_s",), SLOW,
                  harm=harm.stopped("pipeline.ingest", 2.5)),
        LiveFault("chain-publisher-stopped", "the main publisher is stopped for 3 s", ("deliveries_late",), SLOW,
                  harm=harm.stopped("pipeline.main_publisher", 3.0)),
        LiveFault("chain-subscriber-stopped", "a subscriber is stopped for 4 s", ("deliveries_late",), SLOW,
                  harm=harm.stopped("--cluster 1 --subscriber 1", 4.0)),
        LiveFault("chain-receivers-stalled", "the receivers' process is stopped for 1.6 s",
                  ("The receivers were late",), (*OF_THE_MACHINE, *SLOW),
                  harm=harm.stopped("experiments.run.audience", 1.6), parameters=OWN),
        LiveFault("chain-foreign-process", "a foreign process uses a core", ("Foreign work used the machine",),
                  (*OF_THE_MACHINE, *SLOW, "The generator fell behind its plan"), harm=harm.crowded, parameters=OWN),
        LiveFault("chain-lost", "a proxy answers 202 and does not pass a reaction on", ("lost",),
                  run="proxy", harm=harm.lying_proxy(_lie)),
        LiveFault("chain-doubled", "the proxy passes a reaction on twice", ("duplicated",), run="proxy"),
        LiveFault("chain-altered", "the proxy passes another emoji on", ("altered",), run="proxy"),
        LiveFault("chain-phantoms", "another program writes 300 records into the topic", ("foreign",),
                  harm=harm.strangers_writing(300)),
    )
}  # fmt: skip
"""The faults on a real chain, by name."""
