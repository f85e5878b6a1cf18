"""A run in sentences: what a person reads first, computed from the summary."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

NBSP = "\u00a0"  # a number and its unit stay on one line
_NUMBERS = "no one two three four five six seven eight nine ten eleven twelve"


def number(value: int) -> str:
    """Return an integer as prose has it: words to twelve and for a hundred, else digits in groups."""
    if value == 100:
        return "a hundred"
    words = _NUMBERS.split()
    return words[value] if 0 <= value < len(words) else f"{value:,}"


def count(value: int, noun: str) -> str:
    """Return `value` and its noun, with an s where English wants one."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def seconds(value: float | None) -> str:
    """Return a duration as people say it: 0.32 s as "0.32 s", 4 ms as "4 ms", what never came as "never"."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "never"
    return f"{value * 1000:.0f}{NBSP}ms" if abs(value) < 0.0995 else f"{value:.2f}{NBSP}s"


def findings(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return the sentences of the first paragraph, from the flat `summary` and the run's parameters."""
    return [
        *_invalid(summary),
        *_load(summary, parameters),
        *_latency(summary, parameters),
        _counts(summary),
        _deliveries(summary),
        _shown(summary),
    ]


def _invalid(summary: Mapping[str, Any]) -> list[str]:
    """Return what speaks against the run, each reason up to its figures and its remedy."""
    if not summary["reasons"]:
        return []
    reasons = [re.split(r"[:(]", reason)[0].strip() for reason in summary["reasons"]]
    named = "; ".join(reason[0].lower() + reason[1:] for reason in reasons).rstrip(".")
    return [f"This run is INVALID, and its figures are not to be quoted: {named}."]


def _load(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    fans = count(summary["users"], "simulated fan")
    planned, accepted = summary["planned"], summary["accepted"]
    text = f"{fans[0].upper()}{fans[1:]} planned {count(planned, 'reaction')}"
    if planned == accepted:
        text = text.replace(" planned ", " sent ")
    else:
        text += f", of which {number(accepted)} {'was' if accepted == 1 else 'were'} accepted"
    sentences = [f"{text}, and {count(summary['clients'], 'client')} watched."]
    if summary["loop"] == "closed":
        sentences.append(_closed_loop(summary, parameters))
    return sentences


def _closed_loop(summary: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    """Return what sets a closed loop apart: who waits for answers asks less of a slow chain."""
    text = (
        f"This was a closed loop: each fan waited for its answer and then {seconds(float(parameters['think_s']))} on "
        "average before the next reaction, so latency counts from the actual send and is not comparable with that of "
        f"an open loop. Ingest accepted {summary['throughput_per_s']:,.0f} reactions a second"
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
        return ["Too few reactions reached a screen to say how long they took."]
    if math.isinf(p50):
        return ["More than half of the reactions never reached a client that should have seen them."]
    sentences = [
        f"Half of the reactions were on screen within {seconds(p50)}, "
        f"{seconds(summary['e2e_excess_p50_s'])} above the {seconds(floor)} that a trigger every "
        f"{float(parameters['trigger_s']):g}{NBSP}s makes unavoidable"
    ]
    if math.isnan(p99):
        sentences[0] += "."
    elif math.isinf(p99):
        sentences[0] += "; but more than one in a hundred never arrived."
    else:
        sentences[0] += f"; 99 in 100 within {seconds(p99)}, {seconds(summary['e2e_excess_p99_s'])} above it."
    if summary["batches"]:
        sentences.append(
            f"Spark needed {seconds(summary['batch_p50_s'])} for a typical micro-batch, "
            f"{summary['headroom'] * 100:.0f}{NBSP}% of its interval at the 95th percentile."
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
    if faults:
        return "The counts are not right: " + ", ".join(faults) + "."
    if summary["unexplained"]:
        return f"The counts do not add up: they differ from the records by {summary['unexplained']:+,}."
    return (
        f"Every accepted reaction was counted exactly once, and all {summary['oracle_cells']:,} counts agree "
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
    faults = [f"{summary[f'deliveries_{key}']:,} {word}" for key, word in names.items() if summary[f"deliveries_{key}"]]
    if faults:
        places = summary["subscribers_at_fault"]
        where = f" (at subscriber{'s' if ',' in places else ''} {places})"
        return f"Of {summary['deliveries_due']:,} deliveries due, " + ", ".join(faults) + where + "."
    if not summary["deliveries_due"]:
        return "No client stayed long enough to be owed a window."
    return f"Each of the {summary['deliveries_due']:,} deliveries due arrived once and in order."


def _shown(summary: Mapping[str, Any]) -> str:
    error = summary["representation_error"]
    if math.isnan(error):
        return "Nothing was shown."
    return (
        f"Rounding to representatives shifts {summary['tv_distance'] * 100:.0f}{NBSP}% of the mix people see "
        "between types (the raw counts travel along)."
    )
