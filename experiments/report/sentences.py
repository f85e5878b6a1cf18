"""The findings of a run in sentences, computed from its summary."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from experiments.report.format import NBSP, count, lower, number, rounded, seconds, upper, whole, whole_percent


def findings(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the first paragraph, from the flat `summary` and the run's parameters."""
    return [
        *_not_valid(summary),
        *_intervention(parameters),
        *_load(summary, parameters),
        *_latency(summary, parameters),
        _counts(summary),
        _deliveries(summary),
        _shown(summary),
    ]


def _not_valid(summary: Mapping[str, Any]) -> list[str]:
    """Return why the run is INVALID or UNSTEADY, each reason without its figures and its remedy."""
    if not summary["reasons"]:
        return []
    reasons = [re.split(r"[:(]", reason)[0].strip() for reason in summary["reasons"]]
    named = "; ".join(map(lower, reasons)).rstrip(".")
    word = "UNSTEADY" if summary["unsteady"] else "INVALID"
    return [f"This run is {word}, so do not quote its figures: {named}."]


def _intervention(parameters: Mapping[str, Any]) -> list[str]:
    """Return what was done to the chain on purpose: the figures are not those of the chain as it is."""
    cores = float(parameters.get("chain_cores", 0))
    if cores:
        return [f"In this run the chain was limited to {cores:g} cores on purpose."]
    if parameters.get("slow_stage", "none") == "none":
        return []
    share = whole_percent(float(parameters["slow_share"]))
    return [
        f"This run had an intervention: {parameters['slow_stage']} lost {share} of its speed on purpose, by a throttle "
        "that uses CPU in its place, so its figures are not those of the chain as it is."
    ]


def _load(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    users = count(summary["users"], "simulated user")
    planned, accepted = summary["planned"], summary["accepted"]
    text = f"{upper(users)} planned {count(planned, 'reaction')}"
    if planned == accepted:
        text = text.replace(" planned ", " sent ")
    else:
        text += f", of which {number(accepted)} {'was' if accepted == 1 else 'were'} accepted"
    sentences = [f"{text}, and {count(summary['clients'], 'client')} watched."]
    if summary["loop"] == "closed":
        sentences.append(_closed_loop(summary, parameters))
    return sentences


def _closed_loop(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Return what differs in a closed loop: users who wait for answers put less load on a slow chain."""
    text = (
        f"This was a closed loop: each user waited for the answer and then {seconds(float(parameters['think_s']))} on "
        "average before the next reaction, so latency counts from the actual send and is not comparable with that of "
        f"an open loop. Ingest accepted {rounded(summary['throughput_per_s'])} reactions per second"
    )
    for key, words in (
        ("answer_p50_ms", ", and answered half of them within"),
        ("answer_p99_ms", ", 99 in 100 within"),
    ):
        if not math.isnan(summary[key]):
            text += f"{words} {seconds(summary[key] / 1000)}"
    return f"{text}."


def _latency(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    p50, p99, floor = summary["e2e_p50_s"], summary["e2e_p99_s"], summary["floor_p50_s"]
    if math.isnan(p50):
        return ["Too few reactions reached a screen to give their latency."]
    if math.isinf(p50):
        return ["More than half of the reactions never reached a client that should have received them."]
    sentences = [
        f"Half of the reactions were on screen within {seconds(p50)}, where a trigger every "
        f"{float(parameters['trigger_s']):g}{NBSP}s and the flush before it alone impose {seconds(floor)}; half took "
        f"{seconds(summary['e2e_excess_p50_s'])} or less beyond the earliest possible moment"
    ]
    if math.isnan(p99):
        sentences[0] += "."
    elif math.isinf(p99):
        sentences[0] += "; more than one in a hundred never arrived."
    else:
        sentences[0] += (
            f", and 99 in 100 {seconds(summary['e2e_excess_p99_s'])} or less (on screen within {seconds(p99)})."
        )
    worst = summary["excess_worst_window_s"]
    if not math.isnan(worst):
        several = summary["excess_windows"] > 1
        of = f"the worst of {number(summary['excess_windows'])} whole windows" if several else "the one whole window"
        late = f"half took longer than {seconds(worst)}" if math.isfinite(worst) else "at least half never arrived"
        sentences.append(f"In {of}, {late}.")
    if summary["batches"]:
        sentences.append(
            f"Spark needed {seconds(summary['batch_p50_s'])} for a typical micro-batch, "
            f"and {whole_percent(summary['headroom'])} of its interval at the 95th percentile."
        )
    return sentences


def _counts(summary: Mapping[str, Any]) -> str:
    faults = [
        f"{count(summary[key], noun)} {verb}"
        for key, noun, verb in (
            ("lost", "reaction", "lost"),
            ("duplicated", "reaction", "counted more than once"),
            ("altered", "reaction", "altered on the way to Kafka"),
        )
        if summary[key]
    ]
    differing = summary["oracle_cells"] - summary["oracle_equal"]
    if differing:
        faults.append(f"{count(differing, 'count')} differing from what the topic holds")
    if summary["offset_breaks"]:
        faults.append(f"{count(summary['offset_breaks'], 'break')} between consecutive windows")
    if summary["answers_unexpected"]:
        faults.append(f"{count(summary['answers_unexpected'], 'invalid request')} answered otherwise than expected")
    if faults:
        return "The counts have faults: " + ", ".join(faults) + "."
    if summary["unexplained"]:
        return f"The counts do not add up: they differ from the records by {summary['unexplained']:+,}."
    return (
        f"Every accepted reaction was counted exactly once, and all {whole(summary['oracle_cells'])} counts agree "
        "with a recount from Kafka."
    )


def _deliveries(summary: Mapping[str, Any]) -> str:
    names = {
        "missing": "missing",
        "duplicate": "doubled",
        "out_of_order": "out of order",
        "altered": "altered",
    }
    names |= {"late": "late", "unknown": "of unknown windows"}
    faults = [
        f"{whole(summary[f'deliveries_{key}'])} {word}" for key, word in names.items() if summary[f"deliveries_{key}"]
    ]
    if faults:
        subscribers = summary["subscribers_at_fault"]
        where = f" (at subscriber{'s' if ',' in subscribers else ''} {subscribers})"
        return f"Of {whole(summary['deliveries_due'])} deliveries due, " + ", ".join(faults) + where + "."
    if not summary["deliveries_due"]:
        return "No client was connected long enough for a window to be due."
    return f"Each of the {whole(summary['deliveries_due'])} deliveries due arrived once and in order."


def _shown(summary: Mapping[str, Any]) -> str:
    error = summary["representation_error"]
    if math.isnan(error):
        return "No representatives were shown."
    return (
        f"Rounding to representatives shifts {whole_percent(summary['tv_distance'])} of the mix on screen between "
        "types (the exact counts are sent as well)."
    )
