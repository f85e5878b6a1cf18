"""JMeter's samples: read from its CSV, and joined with Kafka's records by user and timestamp."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import ledger
from experiments.jmeter import audit, samples
from experiments.load.schedule import timestamp_of
from experiments.units import NS_PER_MS, NS_PER_S
from pipeline.errors import EmoStreamError

HEADING = (
    "timeStamp,elapsed,label,responseCode,responseMessage,threadName,dataType,success,failureMessage,bytes,sentBytes,"
    'grpThreads,allThreads,URL,Latency,IdleTime,Connect,"user_id","emoji_type","stamp_us"'
)
BEGIN_MS = 1_795_936_360_000


def line(at_ms: int, user: int = 1, code: str = "202", success: str = "true", label: str = samples.REACTION) -> str:
    """Return the line of a sample that began `at_ms` into the load, half a millisecond after its timestamp."""
    own = f"jmeter-{user},😂,{(BEGIN_MS + at_ms) * 1000 - 500}" if label == samples.REACTION else "null,null,null"
    message = '"code expected to equal /\n 202"' if success == "false" else ""
    return f"{BEGIN_MS + at_ms},7,{label},{code},m,Fans 1-{user},text,{success},{message},1,2,3,4,http://x,6,0,1,{own}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of samples: a poll, four reactions not in order, of which one failed and one has no answer."""
    lines = [
        line(50, label="GET the next windows", code="200"),
        line(3_000, user=2, code="503", success="false"),
        line(100),
        line(2_500, code="Non HTTP response code: java.net.SocketException", success="false"),
        line(6_500),
        line(60, label="refused 422: a word", code="422"),
    ]
    file = tmp_path / "results.jtl"
    file.write_text("\n".join([HEADING, *lines]) + "\n", encoding="utf-8")
    return file


def test_samples_are_read_in_order_of_their_starts(path: Path) -> None:
    """A message over several lines is one field, and a variable that a sample lacks is null."""
    frame = samples.read(path)
    assert list(frame["timeStamp"] - BEGIN_MS) == [50, 60, 100, 2_500, 3_000, 6_500]
    assert list(frame["success"]) == [True, True, True, False, False, True]
    assert frame["user_id"].isna().sum() == frame["stamp_us"].isna().sum() == 2
    assert "\n" in frame["failureMessage"].iloc[3]


def test_reactions_become_a_plan_and_its_answers(path: Path) -> None:
    """The plan has the reactions' own timestamps, the answers JMeter's; a reaction without an answer has status 0."""
    own = samples.reactions(samples.read(path))
    plan, sent = samples.plan_frame(own, warm_up_s=2.0, measured_s=4.0), samples.sent_frame(own)
    ledger.require("plan", plan)
    ledger.require("sent", sent)
    assert list(plan["phase"]) == ["warm-up", "measured", "measured", "after"]
    assert (sent["t_sent_ns"] == plan["t_intended_ns"]).all()
    assert list(sent["status"]) == [202, 0, 503, 202]
    assert list((sent["t_answered_ns"] - sent["t_sent_ns"])[sent["status"] > 0]) == [7 * NS_PER_MS] * 3
    assert sent["t_answered_ns"].iloc[1] == 0


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "are missing: see jmeter.log"),
        ("", "cannot be read"),
        (
            HEADING.replace(',"stamp_us"', ""),
            "lack stamp_us: run the plan with -Jsample_variables=user_id,emoji_type,stamp_us",
        ),
        (f"{HEADING}\n{line(0)}".replace(",7,", ",seven,"), "are damaged"),
        (f"{HEADING}\n1,2,3\n{line(0)},1,2", "cannot be read"),
    ],
)
def test_damaged_samples_are_one_line(tmp_path: Path, content: str | None, error: str) -> None:
    """The error names the file and the remedy."""
    file = tmp_path / "results.jtl"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(EmoStreamError, match=f"results.jtl .*{error}"):
        samples.read(file)


def test_reactions_without_identity_are_refused(path: Path) -> None:
    """Without a user and a timestamp a sample cannot be joined; without any reaction nothing was measured."""
    frame = samples.read(path)
    with pytest.raises(EmoStreamError, match="no sample 'POST /reactions'"):
        samples.reactions(frame[frame["label"] != samples.REACTION])
    frame.loc[3, "stamp_us"] = pd.NA
    with pytest.raises(EmoStreamError, match="has no user_id or stamp_us"):
        samples.reactions(frame)


def topic(plan: pd.DataFrame, keep: list[int]) -> pd.DataFrame:
    """Return Kafka's records of the reactions `keep` of a plan, one after the other in one partition."""
    rows = plan.iloc[keep].reset_index(drop=True)
    stamps = dict.fromkeys(("accepted_ns", "flushed_ns", "appended_ns"), rows["t_intended_ns"])
    return pd.DataFrame(
        {
            "partition": 0,
            "offset": np.arange(len(rows)),
            "user_id": rows["user_id"],
            "emoji_type": rows["emoji_type"],
            "timestamp": rows["t_intended_ns"].map(timestamp_of),
            **stamps,
        }
    )


def windows(plan: pd.DataFrame, spans: list[tuple[int, int]], emitted_s: list[float]) -> pd.DataFrame:
    """Return windows over these offsets, emitted at these seconds after JMeter began."""
    rows = [
        ("e", number, 0, BEGIN_MS * NS_PER_MS + round(at_s * NS_PER_S), last - first + 1, 0,
         json.dumps({"emoji-events-0": [first, last]}), "[]", "{}")
        for number, ((first, last), at_s) in enumerate(zip(spans, emitted_s, strict=True), start=1)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(ledger.COLUMNS["windows"]))


def test_send_is_never_before_the_timestamp(path: Path) -> None:
    """JMeter's clock may be early by its resolution; a sample that began late was sent late."""
    own = samples.reactions(samples.read(path))
    own.loc[0, "timeStamp"] -= 1
    own.loc[1, "timeStamp"] += 100
    delays_ms = (samples.sent_frame(own)["t_sent_ns"] - samples.plan_frame(own, 2.0, 4.0)["t_intended_ns"]) / NS_PER_MS
    assert delays_ms.tolist() == [0.0, 100.5 - samples.CLOCK_MS, 0.0, 0.0]


def test_latency_counts_from_the_send_of_jmeter_to_the_window(path: Path) -> None:
    """Of the measured and accepted reactions only; one that no window counts is infinitely late."""
    frame = samples.read(path)
    frame.loc[[3, 4], "responseCode"] = "202"
    own = samples.reactions(frame)
    plan, sent = samples.plan_frame(own, 2.0, 4.0), samples.sent_frame(own)
    held = topic(plan, [0, 1, 2])
    emitted = windows(plan, [(0, 0), (1, 1)], [2.0, 8.0])
    reactions = ledger.join(plan, sent, held, emitted)
    assert reactions["offset"].isna().tolist() == [False, False, False, True]
    # Sent at 2.5 s and in the window of 8 s; sent at 3 s and in no window.
    assert audit.to_window_ms(reactions, emitted).tolist() == [5_500.5, np.inf]


def test_each_kind_of_fault_is_named() -> None:
    """A run is right if no sample failed and every count is exact."""
    right = dict.fromkeys(("errors", "lost", "duplicated", "altered", "foreign"), 0) | {
        "oracle_cells": 9,
        "oracle_equal": 9,
    }
    assert audit.faults(right) == []
    for name in ("errors", "lost", "duplicated", "altered", "foreign"):
        assert audit.faults(right | {name: 2})[0].startswith("2 ")
    assert audit.faults(right | {"oracle_equal": 8}) == ["1 of 9 counts differ from the recount"]


def test_samples_are_summed_up_by_label(path: Path) -> None:
    """Refusals are one row, and failed samples are listed with their reason."""
    frame = samples.read(path)
    table = audit.by_label(frame).set_index("label")
    assert table["samples"].to_dict() == {"GET the next windows": 1, "bad input, refused": 1, samples.REACTION: 4}
    assert table.loc[samples.REACTION, "errors"] == 2
    failed = audit.failures(frame)
    assert set(failed["responseCode"]) == {"503", "Non HTTP response code: java.net.SocketException"}
