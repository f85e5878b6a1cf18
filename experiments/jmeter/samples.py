"""What JMeter recorded: its samples, and the reactions among them as frames of the ledger.

A sample of a reaction carries its user and its timestamp in microseconds, which together identify its record in Kafka.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from pandas.errors import EmptyDataError, ParserError

from experiments.units import NS_PER_MS, NS_PER_S, NS_PER_US
from pipeline.errors import EmoStreamError

REACTION = "POST /reactions"
"""The label of the plan's samples that are reactions."""
REFUSED = "refused "
"""How the labels begin of samples whose expected answer is a refusal."""
VARIABLES = ("user_id", "emoji_type", "stamp_us")
"""The plan's variables that JMeter has to write with each sample."""
# JMeter counts time by a clock that it compares with the system's every 5 s, in whole milliseconds.
CLOCK_MS = 2
_COLUMNS = ("timeStamp", "elapsed", "label", "responseCode", "success", "failureMessage", *VARIABLES)


def read(path: Path) -> pd.DataFrame:
    """Return JMeter's CSV of samples in the order of their starts; a variable that a sample lacks is null.

    Raises EmoStreamError naming the file if it is missing, empty, damaged or without a column.
    """
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values={name: ["null"] for name in VARIABLES})
    except FileNotFoundError:
        raise EmoStreamError(f"JMeter's samples {path} are missing: see jmeter.log beside it") from None
    except (EmptyDataError, ParserError, UnicodeDecodeError) as error:
        raise EmoStreamError(f"JMeter's samples {path} cannot be read ({error}): run it again") from error
    if missing := [name for name in _COLUMNS if name not in frame.columns]:
        raise EmoStreamError(
            f"JMeter's samples {path} lack {', '.join(missing)}: run the plan with "
            f"-Jsample_variables={','.join(VARIABLES)} and save results as CSV with a heading"
        )
    try:
        numbers = {name: frame[name].astype("int64") for name in ("timeStamp", "elapsed")}
        stamps = frame["stamp_us"].astype("Int64")
    except (ValueError, TypeError) as error:
        raise EmoStreamError(f"JMeter's samples {path} are damaged ({error}): run it again") from error
    frame = frame.assign(**numbers, stamp_us=stamps, success=frame["success"] == "true")
    return frame.sort_values("timeStamp", kind="stable", ignore_index=True)


def reactions(samples: pd.DataFrame) -> pd.DataFrame:
    """Return the samples that are reactions. Raises EmoStreamError if there are none, or one has no identity."""
    own = samples[samples["label"] == REACTION].reset_index(drop=True)
    if own.empty:
        raise EmoStreamError(
            f"JMeter recorded no sample {REACTION!r}: let the load last longer (duration_s), and see jmeter.log"
        )
    if own[["user_id", "stamp_us"]].isna().any(axis=None):
        raise EmoStreamError(
            f"a sample {REACTION!r} of JMeter has no user_id or stamp_us, so that its record cannot be found: run the "
            f"plan with -Jsample_variables={','.join(VARIABLES)}"
        )
    return own


def plan_frame(own: pd.DataFrame, warm_up_s: float, measured_s: float) -> pd.DataFrame:
    """Return the ledger's `plan` of the reactions `own`: what was sent, since nothing is planned.

    From the first reaction on the load warms up for `warm_up_s`, and is measured for `measured_s` after that.
    """
    intended_ns = own["stamp_us"].to_numpy(dtype=np.int64) * NS_PER_US
    into_s = (intended_ns - intended_ns.min()) / NS_PER_S
    phase = np.select([into_s < warm_up_s, into_s < warm_up_s + measured_s], ["warm-up", "measured"], "after")
    return pd.DataFrame(
        {
            "seq": np.arange(len(own), dtype=np.int64),
            "user_id": own["user_id"].to_numpy(dtype=object),
            "emoji_type": own["emoji_type"].to_numpy(dtype=object),
            "t_intended_ns": intended_ns,
            "phase": phase.astype(object),
        }
    )


def sent_frame(own: pd.DataFrame) -> pd.DataFrame:
    """Return the ledger's `sent` of the reactions `own`: each was sent when JMeter began its sample.

    That is after the reaction's timestamp, though JMeter's clock, in whole milliseconds, may say a little before. A
    sample without an answer has status 0.
    """
    status = pd.to_numeric(own["responseCode"], errors="coerce").fillna(0).to_numpy(dtype=np.int64)
    began_ns = (own["timeStamp"].to_numpy(dtype=np.int64) - CLOCK_MS) * NS_PER_MS
    sent_ns = np.maximum(began_ns, own["stamp_us"].to_numpy(dtype=np.int64) * NS_PER_US)
    answered_ns = sent_ns + own["elapsed"].to_numpy(dtype=np.int64) * NS_PER_MS
    return pd.DataFrame(
        {
            "seq": np.arange(len(own), dtype=np.int64),
            "t_sent_ns": sent_ns,
            "t_answered_ns": np.where(status > 0, answered_ns, 0),
            "status": status,
        }
    )
