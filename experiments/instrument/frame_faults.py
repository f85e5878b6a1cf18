"""Faults in the frames of a run: what the catalogue changes in the rows of a synthetic run without faults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from experiments.analysis.deliveries import expected_hashes
from experiments.instrument.fault import CHANGES, Fault
from experiments.ledger import WINDOW_KEY
from experiments.load.schedule import timestamp_of
from experiments.synthetic.run import Run
from experiments.units import NS_PER_MS, NS_PER_S

Frames = dict[str, pd.DataFrame]
Planted = tuple[Frames, dict[str, Any]]
"""The frames that differ and the entries of the manifest that differ, each by name."""
Plant = Callable[[Run], Planted]

CASUALTY = 1000
"""The seq of the reaction that something happens to."""
WINDOW = 5
"""The number of the window that something happens to."""


@dataclass(frozen=True)
class FrameFault(Fault):
    """A fault in frames; `plant` returns what it changes in a run."""

    plant: Plant = lambda run: ({}, {})


def planted(fault: FrameFault, run: Run) -> tuple[Frames, dict[str, Any]]:
    """Return all frames and the manifest of `run` with the fault in them; `run` stays as it is."""
    changed, about = fault.plant(run)
    return run.frames | changed, run.manifest | about


def row_of(run: Run, seq: int) -> int:
    """Return the index of a planned reaction's record in the topic."""
    due, topic = _frame(run, "plan").loc[seq], _frame(run, "topic")
    own = (topic["user_id"] == due["user_id"]) & (topic["timestamp"] == timestamp_of(due["t_intended_ns"]))
    return int(topic.index[own][0])


def _frame(run: Run, name: str) -> Any:
    return run.frames[name]


def _copy(run: Run, name: str) -> Any:
    return run.frames[name].copy()


def _clock(run: Run, wrong_ms: Callable[[int], float]) -> Planted:
    samples = run.manifest["clock_samples"]
    return {}, {"clock_samples": [[t + round(wrong_ms(i) * NS_PER_MS), m] for i, (t, m) in enumerate(samples)]}


def _generator_stalled(run: Run) -> Planted:
    plan, sent = _frame(run, "plan"), _frame(run, "sent")
    until_ns = int(plan.loc[CASUALTY, "t_intended_ns"]) + NS_PER_S
    held = (plan["seq"] >= CASUALTY) & (plan["t_intended_ns"] < until_ns)
    return {"sent": sent.assign(t_sent_ns=sent["t_sent_ns"].mask(held, until_ns))}, {}


def _refused(run: Run) -> Planted:
    sent = _copy(run, "sent")
    sent.loc[_nine_in_a_thousand(run), "status"] = 503
    return {"sent": sent}, {}


def _unsent(run: Run) -> Planted:
    return {"sent": run.frames["sent"].drop(index=_nine_in_a_thousand(run))}, {}


def _nine_in_a_thousand(run: Run) -> pd.Index[Any]:
    measured = run.frames["plan"].index[(run.frames["plan"]["phase"] == "measured").to_numpy()]
    return measured[:: len(measured) // (len(measured) * 9 // 1000)]


def _lost(run: Run) -> Planted:
    return {"topic": run.frames["topic"].drop(index=row_of(run, CASUALTY))}, {}


def _altered(run: Run) -> Planted:
    topic = _copy(run, "topic")
    row = row_of(run, CASUALTY)
    topic.loc[row, "emoji_type"] = next(kind for kind in ("😂", "🔥") if kind != topic.loc[row, "emoji_type"])
    return {"topic": topic}, {}


def _stranger(run: Run) -> Planted:
    topic = _copy(run, "topic")
    topic.loc[row_of(run, CASUALTY), "user_id"] = "a stranger"
    return {"topic": topic}, {}


def _doubled(run: Run) -> Planted:
    return _counted(run, run.frames["topic"].loc[[row_of(run, CASUALTY)]]), {}


def _phantoms_in_kafka(run: Run) -> Planted:
    row = run.frames["topic"].loc[[row_of(run, CASUALTY)]]
    rows = pd.concat([row] * 300, ignore_index=True)
    return _counted(run, rows.assign(user_id=[f"phantom-{number}" for number in range(len(rows))])), {}


def _counted(run: Run, records: pd.DataFrame) -> Frames:
    """Return the frames with these records of one type appended to the topic, counted by the last window and shown."""
    topic, windows = _frame(run, "topic"), _copy(run, "windows")
    partition, kind = records.iloc[0][["partition", "emoji_type"]]
    first = int(topic.loc[topic["partition"] == partition, "offset"].max()) + 1
    added = records.assign(
        offset=np.arange(first, first + len(records)), appended_ns=topic["appended_ns"].max()
    ).astype(topic.dtypes)
    last = windows.index[-1]
    offsets = json.loads(windows.loc[last, "offsets"])
    offsets[f"emoji-events-{partition}"][1] = first + len(records) - 1
    counts = {cell["emoji_type"]: cell["count"] for cell in json.loads(windows.loc[last, "reactions"])}
    counts[kind] = counts.get(kind, 0) + len(records)
    cells = [{"emoji_type": each, "count": n, "representatives": -(-n // 10)} for each, n in counts.items()]
    windows.loc[last, ["offsets", "reactions", "total"]] = [
        *(json.dumps(offsets), json.dumps(cells)),
        windows.loc[last, "total"] + len(records),
    ]
    progress = _copy(run, "progress")
    progress.loc[progress["batch_id"] == windows.loc[last, "window"], "num_input_rows"] += len(records)
    return {
        "topic": pd.concat([topic, added], ignore_index=True),
        "windows": windows,
        "deliveries": _shown(run, windows),
        "progress": progress,
    }


def _shown(run: Run, windows: pd.DataFrame) -> pd.DataFrame:
    """Return the deliveries as if each client had been shown these windows."""
    new = windows[[*WINDOW_KEY, "total"]].merge(expected_hashes(windows, 0), on=WINDOW_KEY)
    old = run.frames["deliveries"]
    both = old[WINDOW_KEY].merge(new, on=WINDOW_KEY, how="left")
    return old.assign(total=both["total"].to_numpy(), shown_hash=both["expected_hash"].to_numpy(dtype=np.int64))


def _count_raised(by: int) -> Plant:
    def plant(run: Run) -> Planted:
        windows, cells = _copy(run, "windows"), _cells(run)
        cells[0]["count"] += by
        cells[0]["representatives"] = -(-cells[0]["count"] // 10)
        windows.loc[WINDOW, "reactions"] = json.dumps(cells)
        windows.loc[WINDOW, "total"] += by
        return {"windows": windows, "deliveries": _shown(run, windows)}, {}

    return plant


def _counts_moved(run: Run) -> Planted:
    windows, cells = _copy(run, "windows"), _cells(run)
    cells[0]["count"] -= 10
    cells[0]["representatives"] -= 1
    cells[1]["count"] += 10
    cells[1]["representatives"] += 1
    windows.loc[WINDOW, "reactions"] = json.dumps(cells)
    return {"windows": windows, "deliveries": _shown(run, windows)}, {}


def _representatives_raised(run: Run) -> Planted:
    windows, cells = _copy(run, "windows"), _cells(run)
    cells[0]["representatives"] += 1
    windows.loc[WINDOW, "reactions"] = json.dumps(cells)
    return {"windows": windows, "deliveries": _shown(run, windows)}, {}


def _cells(run: Run) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(_frame(run, "windows").loc[WINDOW, "reactions"])
    return cells


def _window_not_emitted(run: Run) -> Planted:
    return {"windows": run.frames["windows"].drop(index=WINDOW)}, {}


def _emitted_again(run: Run) -> Planted:
    windows = _frame(run, "windows")
    again = windows.loc[[WINDOW]].assign(total=windows.loc[WINDOW, "total"] + 1)
    return {"windows": pd.concat([windows, again], ignore_index=True)}, {}


def _record_skipped(run: Run) -> Planted:
    """The window begins one record later in one partition, and counts one reaction less."""
    topic, windows = _frame(run, "topic"), _copy(run, "windows")
    offsets = json.loads(windows.loc[WINDOW, "offsets"])
    key, (first, _) = next(iter(offsets.items()))
    offsets[key][0] += 1
    skipped = topic[(topic["partition"] == int(key[-1])) & (topic["offset"] == first)]["emoji_type"].iloc[0]
    cells = [cell | {"count": cell["count"] - (cell["emoji_type"] == skipped)} for cell in _cells(run)]
    cells = [cell | {"representatives": -(-cell["count"] // 10)} for cell in cells if cell["count"]]
    windows.loc[WINDOW, ["offsets", "reactions", "total"]] = [
        *(json.dumps(offsets), json.dumps(cells)),
        windows.loc[WINDOW, "total"] - 1,
    ]
    return {"windows": windows, "deliveries": _shown(run, windows)}, {}


def _later(late_ms: Callable[[int], float]) -> Plant:
    """Return what makes window `number` `late_ms(number)` later, with its micro-batch and its deliveries."""

    def plant(run: Run) -> Planted:
        windows, deliveries, progress = (_copy(run, name) for name in ("windows", "deliveries", "progress"))
        for number in windows["window"]:
            late_ns = round(late_ms(number) * NS_PER_MS)
            windows.loc[windows["window"] == number, "emitted_ns"] += late_ns
            stamps = ["main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "received_ns"]
            deliveries.loc[deliveries["window"] == number, stamps] += late_ns
            spans = ["trigger_execution_ms", "add_batch_ms"]
            progress.loc[progress["batch_id"] == number, spans] += late_ns // NS_PER_MS
        return {"windows": windows, "deliveries": deliveries, "progress": progress}, {}

    return plant


def _window_overrun(run: Run) -> Planted:
    """A micro-batch runs on after the next trigger was due: the next window's trigger is when it ended."""
    windows, deliveries, progress = (_copy(run, name) for name in ("windows", "deliveries", "progress"))
    end_ns = int(windows.loc[WINDOW + 1, "trigger_ns"]) + NS_PER_S // 2
    later_ns = {WINDOW: end_ns - int(windows.loc[WINDOW, "emitted_ns"]), WINDOW + 1: NS_PER_S // 2 + 20 * NS_PER_MS}
    for number, late_ns in later_ns.items():
        windows.loc[number, "emitted_ns"] += late_ns
        stamps = ["main_sent_ns", "cluster_sent_ns", "subscriber_sent_ns", "received_ns"]
        deliveries.loc[deliveries["window"] == number, stamps] += late_ns
    windows.loc[WINDOW + 1, "trigger_ns"] = end_ns + 20 * NS_PER_MS
    progress.loc[progress["batch_id"] == WINDOW + 1, "trigger_start_ns"] = end_ns + 20 * NS_PER_MS
    progress.loc[progress["batch_id"] == WINDOW, ["trigger_execution_ms", "add_batch_ms"]] += (
        later_ns[WINDOW] // NS_PER_MS
    )
    return {"windows": windows, "deliveries": deliveries, "progress": progress}, {}


def _trigger_wrong(run: Run) -> Planted:
    windows = run.frames["windows"]
    return {"windows": windows.assign(trigger_ns=windows["trigger_ns"] + (windows["window"] == WINDOW) * NS_PER_S)}, {}


def _broker_ahead(by_ms: int) -> Plant:
    def plant(run: Run) -> Planted:
        topic = run.frames["topic"]
        return {"topic": topic.assign(appended_ns=topic["appended_ns"] + by_ms * NS_PER_MS)}, {}

    return plant


def _receivers_stalled(run: Run) -> Planted:
    """Once, for 1.6 s: the timer wakes up once, and what arrived meanwhile is stamped when the stall ends."""
    timer, deliveries = run.frames["receivers_timer"], run.frames["deliveries"]
    begin_ns = int(deliveries.loc[deliveries["window"] == WINDOW, "subscriber_sent_ns"].min()) - 10 * NS_PER_MS
    end_ns = begin_ns + 1_600 * NS_PER_MS
    rest = timer[~timer["t_ns"].between(begin_ns, end_ns)]
    stall = pd.DataFrame({"t_ns": [end_ns], "late_ns": [end_ns - begin_ns]})
    inside = deliveries["received_ns"].between(begin_ns, end_ns)
    return {
        "receivers_timer": pd.concat([rest, stall]).sort_values("t_ns", ignore_index=True),
        "deliveries": deliveries.assign(received_ns=deliveries["received_ns"].mask(inside, end_ns)),
    }, {}


def _without_client(*frames: str) -> Plant:
    def plant(run: Run) -> Planted:
        kept = {name: run.frames[name] for name in frames}
        return {name: frame[frame["client_id"] != "client-002"] for name, frame in kept.items()}, {}

    return plant


def _subscriber_slow(run: Run) -> Planted:
    people, deliveries = run.frames["clients"], run.frames["deliveries"]
    own = set(people.loc[(people["cluster"] == "2") & (people["subscriber"] == "1"), "client_id"])
    behind = deliveries["client_id"].isin(own) * 3 * NS_PER_S
    return {
        "deliveries": deliveries.assign(
            subscriber_sent_ns=deliveries["subscriber_sent_ns"] + behind,
            received_ns=deliveries["received_ns"] + behind,
        )
    }, {}


def _hash_changed(run: Run) -> Planted:
    deliveries = _copy(run, "deliveries")
    deliveries.loc[deliveries.index[5], "shown_hash"] += 1
    return {"deliveries": deliveries}, {}


def _delivery_missing(run: Run) -> Planted:
    return {"deliveries": run.frames["deliveries"].drop(index=_one_delivery(run))}, {}


def _delivery_doubled(run: Run) -> Planted:
    deliveries = run.frames["deliveries"]
    return {"deliveries": pd.concat([deliveries, deliveries.loc[[_one_delivery(run)]]], ignore_index=True)}, {}


def _delivery_out_of_order(run: Run) -> Planted:
    deliveries = run.frames["deliveries"]
    one = _one_delivery(run)
    return {"deliveries": pd.concat([deliveries.drop(index=one), deliveries.loc[[one]]], ignore_index=True)}, {}


def _one_delivery(run: Run) -> int:
    deliveries = run.frames["deliveries"]
    return int(deliveries.index[(deliveries["window"] == WINDOW) & (deliveries["client_id"] == "client-003")][0])


def _progress_halved(run: Run) -> Planted:
    return {"progress": run.frames["progress"].iloc[::2]}, {}


def _report_without_window(run: Run) -> Planted:
    progress = run.frames["progress"]
    last = progress.iloc[[-2]]
    extra = last.assign(batch_id=last["batch_id"] + 1, trigger_start_ns=last["trigger_start_ns"] + 6 * NS_PER_S)
    return {"progress": pd.concat([progress.iloc[:-1], extra], ignore_index=True)}, {}


def _no_usage(run: Run) -> Planted:
    return {"usage": run.frames["usage"].iloc[:0]}, {}


def _foreign_process(run: Run) -> Planted:
    usage = run.frames["usage"]
    spent_s = (usage["t_ns"] - usage["t_ns"].min()) / NS_PER_S
    return {"usage": usage.assign(cpu_s=usage["cpu_s"] + spent_s * (usage["stage"] == "machine"))}, {}


def _no_timer(run: Run) -> Planted:
    return {"receivers_timer": run.frames["receivers_timer"].iloc[:0]}, {}


def _manifest(**about: Any) -> Plant:
    return lambda run: ({}, dict(about))


_LATENESS = ("e2e_excess_p50_s", "e2e_excess_p99_s")

FAULTS: Mapping[str, FrameFault] = {
    fault.name: fault
    for fault in (
        FrameFault("generator-stalled", "the generator sends nothing for 1 s", ("The generator stalled",),
                   ("The generator fell behind its plan", "Effects lie before their causes"), _generator_stalled),
        FrameFault("refused", "0.9 % of the reactions are refused (503)", ("accepted_share",), ("e2e_excess_p99_s",),
                   _refused),
        FrameFault("unsent", "0.9 % of the reactions are never sent",
                   ("accepted_share", "Only … of the plan was sent"), ("e2e_excess_p99_s",), _unsent),
        FrameFault("lost", "a reaction that was answered 202 is not in Kafka", ("lost",),
                   ("oracle_share", "unexplained"), _lost),
        FrameFault("doubled", "a reaction stands in Kafka twice and is counted twice", ("duplicated",), (), _doubled),
        FrameFault("altered", "a reaction stands in Kafka with another emoji", ("altered",), ("oracle_share",),
                   _altered),
        FrameFault("stranger", "a reaction in Kafka names another user", ("foreign", "lost"), (), _stranger),
        FrameFault("phantoms", "300 phantom reactions in one count, without records", ("unexplained", "oracle_share"),
                   (), _count_raised(300)),
        FrameFault("phantoms-in-kafka", "300 records that nobody sent, counted", ("foreign",), (), _phantoms_in_kafka),
        FrameFault("count-raised", "one count is one too high", ("unexplained", "oracle_share"), (), _count_raised(1)),
        FrameFault("counts-moved", "ten reactions counted as another emoji, the total kept", ("oracle_share",), (),
                   _counts_moved),
        FrameFault("representatives", "one representative too many", ("representatives_wrong",), (),
                   _representatives_raised),
        FrameFault("window-not-emitted", "a window never emitted but delivered to all",
                   ("deliveries_unknown", "lost", "offset_breaks", "Windows are missing"),
                   (*_LATENESS, "lag_slope_upper_share"), _window_not_emitted),
        FrameFault("emitted-again", "a window is emitted again with other contents", ("conflicting",), (),
                   _emitted_again),
        FrameFault("record-skipped", "a window skips a record", ("offset_breaks", "lost"), (), _record_skipped),
        FrameFault("window-late", "a window is emitted 2 s late", ("e2e_excess_p99_s", "batch_p95_s"), (),
                   _later(lambda number: 2_000.0 * (number == WINDOW))),
        FrameFault("slowing", "the chain slows down by 1 s per minute", CHANGES, (*_LATENESS, "batch_p95_s"),
                   _later(lambda number: 100.0 * number)),
        FrameFault("step", "the chain is 300 ms slower from the middle on", CHANGES, (*_LATENESS, "batch_p95_s"),
                   _later(lambda number: 300.0 * (number >= 8))),
        FrameFault("trigger-wrong", "a trigger stamped 1 s wrong", ("Triggers are wrong",),
                   ("Effects lie before their causes", "lag_slope_upper_share"), _trigger_wrong),
        FrameFault("broker-clock", "the broker's clock is 3 s ahead", ("Kafka's clock differs from ours",),
                   ("Effects lie before their causes", "lag_slope_upper_share"), _broker_ahead(3_000)),
        FrameFault("broker-clock-late", "the broker's clock is 25 ms ahead", ("Kafka's clock differs from ours",), (),
                   _broker_ahead(25)),
        FrameFault("window-overrun", "a micro-batch runs on after the next trigger was due",
                   ("e2e_excess_p99_s", "batch_p95_s"), ("headroom", "lag_slope_upper_share"), _window_overrun),
        FrameFault("clock-stepped", "the clock steps by 10 ms", ("The clock stepped",), (),
                   lambda run: _clock(run, lambda i: 10.0 * (i >= 30))),
        FrameFault("clock-slewed", "the clock slews by 4.9 ms/s", ("The clock drifted",), (),
                   lambda run: _clock(run, lambda i: 4.9 * i)),
        FrameFault("clock-not-watched", "there are no samples of the clock", ("The clock was not watched",), (),
                   _manifest(clock_samples=[])),
        FrameFault("receivers-stalled", "the receivers stall once, for 1.6 s", ("The receivers were late",),
                   ("e2e_excess_p99_s",), _receivers_stalled),
        FrameFault("receivers-not-timed", "the receivers' timer has no rows", ("The receivers were not timed",), (),
                   _no_timer),
        FrameFault("client-absent", "a client is absent from both frames", ("Clients are missing",), (),
                   _without_client("clients", "deliveries")),
        FrameFault("client-deaf", "a client receives nothing", ("Clients received nothing", "deliveries_missing"),
                   _LATENESS, _without_client("deliveries")),
        FrameFault("subscriber-slow", "a subscriber is 3 s behind", ("deliveries_late",), _LATENESS, _subscriber_slow),
        FrameFault("delivery-altered", "delivered counts are altered, their total kept", ("deliveries_altered",), (),
                   _hash_changed),
        FrameFault("delivery-missing", "a client does not get a window", ("deliveries_missing",),
                   ("e2e_excess_p99_s",), _delivery_missing),
        FrameFault("delivery-doubled", "a client gets a window twice", ("deliveries_duplicate",),
                   ("deliveries_out_of_order",), _delivery_doubled),
        FrameFault("delivery-out-of-order", "a client gets a window after later ones", ("deliveries_out_of_order",),
                   (), _delivery_out_of_order),
        FrameFault("progress-halved", "half of Spark's progress is missing", ("Spark's progress is incomplete",), (),
                   _progress_halved),
        FrameFault("report-without-window", "Spark reports a micro-batch that no window shows",
                   ("Windows are missing",), (), _report_without_window),
        FrameFault("usage-missing", "there are no samples of CPU time", ("CPU time was not sampled",), (), _no_usage),
        FrameFault("foreign-process", "a foreign process uses a core", ("Foreign work used the machine",), (),
                   _foreign_process),
        FrameFault("steal", "the host takes a tenth of the machine", ("The host took CPU away",), (),
                   _manifest(cores=2, steal_s=16.0)),
        FrameFault("speed-changed", "the machine is half as fast after the run", ("The machine's speed changed",), (),
                   _manifest(work_s=[0.01, 0.02])),
        FrameFault("other-run", "another measurement runs at the same time",
                   ("Another run was active on this machine at the same time",), (), _manifest(other_run=True)),
    )
}  # fmt: skip
"""The faults in frames, by name."""
