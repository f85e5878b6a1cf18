"""Mutations: single changes of the instrument's own source, each of which a check must notice.

A mutation of the analysis is checked with runs whose rows are known: the summary is compared with the second reading
of the same rows (experiments.second_reading), and the differing figures are its names. A mutation of the load or of
the receivers is checked by a short run on a twin.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.instrument.fault import Fault

CLEAN = "clean"
"""The run without a fault, as a name beside those of the catalogue."""


@dataclass(frozen=True)
class Mutation(Fault):
    """`old` is replaced by `new` in `module`, a path in the package `experiments`; it must be there exactly once.

    `on` is what shows it: the clean run and faults in frames. With `live` it is a run on a twin, clean or with a fault;
    if the run does not name that fault, the mutation is found under the fault's name.
    """

    module: str = ""
    old: str = ""
    new: str = ""
    on: tuple[str, ...] = (CLEAN,)
    live: str = ""


def _analysis(
    name: str, what: str, expected: str | tuple[str, ...], module: str, old: str, new: str, *on: str
) -> Mutation:
    names = (expected,) if isinstance(expected, str) else expected
    return Mutation(name, what, names, (), f"analysis/{module}.py", old, new, on or (CLEAN,))


MUTATIONS: Mapping[str, Mutation] = {
    mutation.name: mutation
    for mutation in (
        _analysis("quantile-rank", "a quantile is off by one rank", ("e2e_p50_s", "floor_p99_s"), "latency",
                  "math.ceil(q * n - 1e-9) - 1", "math.ceil(q * n - 1e-9)"),
        _analysis("floor-previous", "the floor leads to the previous trigger", ("floor_p50_s", "e2e_excess_p50_s"),
                  "floor", "return _next_multiple(flush_ns, trigger_ns)",
                  "return _next_multiple(flush_ns, trigger_ns) - trigger_ns"),
        _analysis("worst-mean", "the worst window is the mean window", "excess_worst_window_s", "excess",
                  "float(medians.max())", "float(medians.mean())"),
        _analysis("unit-slip", "microseconds are taken for milliseconds", ("batch_p50_s", "headroom"), "batches",
                  'pairs["trigger_execution_ms"] / 1000', 'pairs["trigger_execution_ms"] / 1_000_000'),
        _analysis("infinite-dropped", "what never arrived is dropped", "e2e_excess_p99_s", "excess",
                  'rows = rows[rows["weight"] > 0]', 'rows = rows[(rows["weight"] > 0) & (rows["value"] < NEVER_NS)]',
                  "delivery-missing"),
        _analysis("doubles-ignored", "reactions counted twice are not added up", "duplicated", "accuracy",
                  "duplicated=int((covers[twice] - 1).sum())", "duplicated=0", "doubled"),
        _analysis("overrun-ignored", "the grid of triggers ignores that a batch still ran", "triggers_wrong",
                  "causality", "((named != grid) & ~overrun)", "(named != grid)", "window-overrun"),
        _analysis("stall-once", "a stall of the receivers counts as one late wake-up", "receivers_late_p99.9_ms",
                  "validity", '_at_any_moment(during["late_ns"].to_numpy(dtype=np.int64))',
                  'during["late_ns"].to_numpy(dtype=np.int64)', "receivers-stalled"),
        _analysis("hash-not-compared", "what was shown is not compared with what was emitted", "deliveries_altered",
                  "deliveries", '!= rows["expected_hash"].astype("Int64"))', '!= rows["shown_hash"].astype("Int64"))',
                  "delivery-altered"),
        _analysis("group-size", "the group of a representative is one too small", "representation_error",
                  "representation", 'signed = group_size * seen["representatives"]',
                  'signed = (group_size - 1) * seen["representatives"]'),
        _analysis("last-window", "the last window is dropped", "windows", "analyse",
                  "known = ledger.unique_windows(windows)", "known = ledger.unique_windows(windows).iloc[:-1]"),
        _analysis("clock-ignored", "the samples of the clock are ignored", ("clock_drift_ms_per_s", "valid"), "analyse",
                  'causality.clock(manifest.get("clock_samples", ()), span_ns)',
                  "causality.clock([(0, 0), (1, 1)], (0, 0))",
                  "clock-slewed"),
        _analysis("reason-ignored", "the verdict ignores the reasons of the generator", "valid", "analyse",
                  "for finding in findings for reason", "for finding in findings[1:] for reason", "unsent"),
        _analysis("objective-turned", "an objective with a least value takes it for the most",
                  "slos.oracle_share",
                  "verdict", "(size >= self.limit if self.at_least", "(size <= self.limit if self.at_least",
                  "count-raised"),
        _analysis("foreign-limit", "twice a machine of foreign work is accepted", "valid", "validity",
                  "FOREIGN_SHARE = 0.044", "FOREIGN_SHARE = 2.0", "foreign-process"),
        _analysis("gap-off-by-one", "windows that meet are a gap", "offset_breaks", "accuracy",
                  'step = ranges["first"] - before["last"] - 1', 'step = ranges["first"] - before["last"]'),
        _analysis("oracle-one-sided", "counts above those of the topic agree", ("oracle_equal", "oracle_share"),
                  "accuracy", 'both[both["emitted"] != both["expected"]].reset',
                  'both[both["emitted"] < both["expected"]].reset',
                  "count-raised"),
        _analysis("hops-unweighted", "hops are not weighted by their pairs", "hop_micro_batch_mean_ms", "hops",
                  "np.average(values, weights=weights)", "np.average(values)"),
        _analysis("warm-up-counted", "reactions of the warm-up are measured", "reactions_measured", "latency",
                  '(reactions["phase"] == "measured")', '(reactions["phase"] != "")'),
        _analysis("lag-not-summed", "the lag is what arrived, not what is left", "lag_slope_per_s", "lag",
                  "np.cumsum(steps)[: len(due)]", "steps[: len(due)]", "window-not-emitted"),
        _analysis("p95-is-p90", "p95 of the micro-batches is their p90", ("batch_p95_s", "headroom"), "batches",
                  "p95 = rank_quantile(batch, 0.95)", "p95 = rank_quantile(batch, 0.9)", "window-late"),
        _analysis("late-doubled", "a delivery is late after twice the time", "deliveries_late", "deliveries",
                  "> round(late_s * NS_PER_S)", "> round(2 * late_s * NS_PER_S)", "subscriber-slow"),
        _analysis("others-ignored", "the CPU time of other processes is left out", "cpu_share_others", "usage",
                  "max(result.get(OTHERS, 0.0), result[MACHINE] - known)", "0.0", "foreign-process"),
        _analysis("broker-limit", "the broker's clock may differ by 5 s", "valid", "causality",
                  "BROKER_OFFSET_MS = 5.0", "BROKER_OFFSET_MS = 5000.0", "broker-clock-late"),
        _analysis("cause-ignored", "an append after its window's emission is no contradiction", "before_their_cause",
                  "causality", '_early(reactions["appended_ns"], emissions, 0.0)',
                  '_early(reactions["appended_ns"], emissions, 1e9)', "broker-clock"),
        Mutation("record-left-out", "the last record of a window is in no window", ("lost",), (), "ledger.py",
                 'int(np.searchsorted(inside, last, "right"))', 'int(np.searchsorted(inside, last, "left"))'),
        Mutation("refusal-accepted", "a 503 counts as accepted", ("accepted", "accepted_share"), (), "ledger.py",
                 '(reactions["status"] == 202)', '(reactions["status"] >= 202)', ("refused",)),
        Mutation("sent-is-intended", "the sender records the planned moment as the actual one",
                 ("twin-generator-stopped",), (), "load/sender.py",
                 "self._sent_ns[index] = time.time_ns()\n        connection.write",
                 "self._sent_ns[index] = self._due_ns[index]\n        connection.write",
                 live="twin-generator-stopped"),
        Mutation("timer-not-run", "the receivers' timer never runs", ("The receivers were not timed",), (),
                 "run/audience.py", "asyncio.create_task(timer.run())", "asyncio.create_task(asyncio.sleep(0))",
                 live=CLEAN),
        Mutation("hash-without-counts", "the hash of what was shown leaves the counts out", ("deliveries_altered",), (),
                 "run/audience.py", "shown_hash((cell.emoji_type, cell.count, cell.representatives)",
                 "shown_hash((cell.emoji_type, 0, cell.representatives)", live=CLEAN),
        Mutation("doubles-not-recorded", "the receivers record each window once", ("twin-delivery-doubled",), (),
                 "run/audience.py", 'if event.event == "window":',
                 'if event.event == "window" and all(each[1] != event.id for each in received):',
                 live="twin-delivery-doubled"),
    )
}  # fmt: skip
"""The mutations, by name."""
